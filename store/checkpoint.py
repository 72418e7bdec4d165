"""Checkpoints that survive a kill at any moment, and that never execute anything when read.

A run folder holds `checkpoints/step-000000131072/` with one safetensors file per group of tensors and

- `info.json`        {"schema", "step", "info"}: counters, random states, file offsets, whatever JSON can say
- `manifest.json`    {"schema", "step", "files": {name: {"sha256", "size"}}}
- `manifest.sha256`  all of these files as `sha256sum -c` reads them, and in a comment the checksum of its own
  lines: no file of a checkpoint can change unnoticed

It is written under a temporary name, fsynced and renamed; the text file `checkpoints/latest` moves last.
Whenever a process is killed, what carries a checkpoint's name is whole. One process writes a run at a
time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array
from .names import BEST, CHECKPOINTS, LATEST
from .renamed import current_names

Group = Mapping[str, Array]

SCHEMA = 1
KINDS = "bool float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 complex64".split()
MANIFEST_BYTES = 1 << 24  # no honest manifest is larger, and a damaged one must not fill the memory
_STEP = re.compile(r"(?:\.replaced-)?step-(\d{12,18})")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # of a file: no path, no hidden file
_SUM = re.compile(r"([0-9a-f]{64})  (.*)")


class CheckpointError(ValueError):
    """A checkpoint cannot be written, found, read or used; the message is one line."""


class Checkpoint(NamedTuple):
    """What `load` gives back. The arrays are fresh and writable."""

    step: int  # env steps
    tensors: dict[str, dict[str, Array]]
    info: dict[str, Any]
    path: Path
    warnings: list[str]  # one line for each damaged checkpoint that was passed over


def save(folder: Path, step: int, tensors: Mapping[str, Group], info: Mapping[str, Any], keep: int = 3) -> Path:
    """Write `folder/checkpoints/step-<step>/`, make it the latest, and keep `keep` of those up to this step.

    Later steps in the folder belong to a future that a resume from an older checkpoint has left: they go too. The one that
    `best` names stays beside the `keep` newest.

    Args:
        folder: the run folder.
        step: env steps so far; a checkpoint of the same step is replaced.
        tensors: one safetensors file per key; values are dicts of numpy arrays of any shape (see `KINDS`).
        info: JSON with string keys. Big whole numbers, NaN and infinity come back as they were.
        keep: how many checkpoints stay, at least 1.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: something that cannot be stored.
        OSError: the disk refused; older checkpoints are intact.
    """
    if keep < 1:
        raise CheckpointError(f"keep={keep}: a run needs at least 1 checkpoint")
    if not 0 <= step < 10**18:
        raise CheckpointError(f"step {step}: a checkpoint's step is a whole number from 0")
    files = {_file_name(key): _pack(key, group) for key, group in tensors.items()}
    files["info.json"] = _encode({"schema": SCHEMA, "step": int(step), "info": dict(info)})
    entries = {name: {"sha256": _sha256(data), "size": len(data)} for name, data in sorted(files.items())}
    files["manifest.json"] = _encode({"schema": SCHEMA, "step": int(step), "files": entries}, indent=2)
    files["manifest.sha256"] = _sums(files)

    root = Path(folder) / CHECKPOINTS
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    name = f"step-{step:012d}"
    final, temporary, replaced = root / name, root / f".tmp-{name}", root / f".replaced-{name}"
    try:
        temporary.mkdir()
        for file, data in files.items():
            _write(temporary / file, data)
        _sync_folder(temporary)
        if os.path.lexists(final):
            final.rename(replaced)  # `load` finds it under this name if we are killed before the next line
        temporary.rename(final)
        _sync_folder(root)
        _point(root, LATEST, step)
    except OSError:
        _delete(temporary)
        raise
    past = sorted((number for number, path in _steps(root) if path.name != replaced.name), reverse=True)
    kept = [number for number in past if number <= step][:keep]
    best = best_step(folder)
    if best is not None and best <= step:
        kept.append(best)
    for number, path in _steps(root):
        if number not in kept or path == replaced:
            trash = root / f".trash-{path.name}"  # half-deleted, it must not be taken for a checkpoint
            with contextlib.suppress(OSError):  # what cannot go now goes at the next save
                path.rename(trash)
                _delete(trash)
    return final


def load(folder: Path) -> Checkpoint:
    """The newest intact checkpoint of a run folder: `latest` first, then the others by falling step.

    Raises:
        CheckpointError: there is none; the message names what is wrong with the newest.
    """
    root = Path(folder) / CHECKPOINTS
    warnings: list[str] = []
    steps = dict(sorted(_steps(root), key=lambda entry: not entry[1].name.startswith(".")))
    order = sorted(steps, reverse=True)
    latest = _named(root, LATEST, warnings) if steps else None
    if latest in steps:
        order.insert(0, order.pop(order.index(latest)))
    elif latest is not None:
        warnings.append(f"checkpoint step-{latest:012d} is named by {root / LATEST} but is not there")
    for step in order:
        try:
            return read(steps[step])._replace(warnings=warnings)
        except CheckpointError as error:
            warnings.append(str(error))
    if not warnings:
        raise CheckpointError(f"no checkpoint in {root}: the run was stopped before its first, train it again")
    more = f" (and {len(warnings) - 1} more like it)" if len(warnings) > 1 else ""
    raise CheckpointError(f"no intact checkpoint in {root}: {warnings[0]}{more}")


def load_step(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of `step` environment steps.

    Raises:
        CheckpointError: it is not there, or damaged; the message names those that are there.
    """
    steps = {number: path for number, path in _steps(Path(folder) / CHECKPOINTS)}
    if step not in steps:
        known = ", ".join(f"{number:,}" for number in sorted(steps)) or "none"
        raise CheckpointError(f"run {folder} has no checkpoint of {step:,} steps: there are {known}")
    return read(steps[step])


def mark_best(folder: Path, step: int | None) -> None:
    """Let `best` name the checkpoint of `step`, which stays from now on; None: none is the best."""
    root = Path(folder) / CHECKPOINTS
    if step is None:
        (root / BEST).unlink(missing_ok=True)
    else:
        _point(root, BEST, step)


def best_step(folder: Path) -> int | None:
    """Environment steps of the checkpoint that `best` names; None where there is none."""
    root = Path(folder) / CHECKPOINTS
    step = _named(root, BEST, []) if (root / BEST).exists() else None
    return step if step in dict(_steps(root)) else None


def read(path: Path) -> Checkpoint:
    """One checkpoint directory, every file read once, checked, then parsed from the same bytes.

    Raises:
        CheckpointError: names the checkpoint, the file and its fault.
    """
    path = Path(path)
    try:
        return _read(path)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path.name} is damaged: {error}") from None


def require(tensors: Group, expected: Mapping[str, tuple[tuple[int, ...], Any]], what: str = "checkpoint") -> None:
    """Check one group against what its consumer needs: exactly these names, each with (shape, dtype).

    Raises:
        CheckpointError: the first difference.
    """
    for name in sorted(set(tensors) | set(expected)):
        if name not in tensors:
            raise CheckpointError(f"{what}: {name!r} is missing: was it written with other options or another version?")
        if name not in expected:
            raise CheckpointError(f"{what}: {name!r} is unknown here: was it written with other options?")
        shape, dtype = tuple(expected[name][0]), np.dtype(expected[name][1])
        array = tensors[name]
        if array.shape != shape or array.dtype != dtype:
            raise CheckpointError(
                f"{what}: {name!r} is {array.dtype} {array.shape}, needed is {dtype} {shape}: "
                "use the options that it was written with"
            )


def digest(tensors: Mapping[str, Any]) -> str:
    """sha256 (hex) over sorted names, dtypes, shapes and bytes; groups may be nested."""
    total = hashlib.sha256()
    for path, value in sorted(_leaves(tensors, ())):
        array = _plain(path[-1], value)
        total.update(json.dumps([path, array.dtype.name, array.shape]).encode() + b"\n")
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _leaves(tensors: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tensors.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


# --- one checkpoint's bytes


def _file_name(key: str) -> str:
    if not _NAME.fullmatch(key):
        raise CheckpointError(f"tensor group {key!r}: letters, digits, '_', '-' and '.' make a file name")
    return f"{key}.safetensors"


def _plain(name: str, value: Any) -> Array:
    """Little-endian, C-ordered: safetensors writes memory as it lies, strided arrays would be scrambled."""
    array = np.asarray(value, order="C")
    if array.dtype.name not in KINDS:
        raise CheckpointError(f"tensor {name!r} is {array.dtype}: store {', '.join(KINDS)}")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _pack(key: str, group: Group) -> bytes:
    import safetensors.numpy

    if "__metadata__" in group:
        raise CheckpointError(f"tensor group {key!r}: safetensors keeps the name '__metadata__' for itself")
    return safetensors.numpy.save({name: _plain(f"{key}/{name}", value) for name, value in group.items()})


def _unpack(file: str, data: bytes) -> dict[str, Array]:
    import safetensors.numpy

    try:
        tensors = safetensors.numpy.load(data)
    except Exception as error:  # a stranger's bytes: whatever the parser makes of them, they are not tensors
        raise CheckpointError(f"{file} is not safetensors ({str(error).splitlines()[0]:.100})") from None
    return {name: tensors[name] for name in sorted(tensors)}


def _encode(value: Any, indent: int | None = None) -> bytes:
    try:
        return json.dumps(value, indent=indent, default=_number).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"info is not JSON: {error}") from None


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r:.60}: arrays belong into tensors")


def _decode(file: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file} is not JSON") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    if value.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{file} has schema {value.get('schema')!r:.20}, this version reads {SCHEMA}: use the gumdrop that wrote it"
        )
    return value


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sums(files: Mapping[str, bytes]) -> bytes:
    lines = "".join(f"{_sha256(data)}  {name}\n" for name, data in sorted(files.items())).encode()
    return lines + f"# {_sha256(lines)} of the lines above\n".encode()


def _parse_sums(data: bytes) -> dict[str, str]:
    """Name -> sha256 of every file, once the file's own checksum is right and no name leads elsewhere."""
    lines, mark, own = data.rpartition(b"# ")
    if not mark or own != f"{_sha256(lines)} of the lines above\n".encode():
        raise CheckpointError("manifest.sha256 does not match its own checksum")
    sums: dict[str, str] = {}
    for line in lines.decode("utf-8", "replace").splitlines():
        match = _SUM.fullmatch(line)
        if not match or not _NAME.fullmatch(match[2]):
            raise CheckpointError(f"manifest.sha256 has the line {line[64:]!r:.80}: plain file names only")
        sums[match[2]] = match[1]
    return sums


def _read(path: Path) -> Checkpoint:
    step = _step_of(path)
    sums = _parse_sums(_bytes(path, "manifest.sha256", limit=MANIFEST_BYTES))
    if "manifest.json" not in sums:
        raise CheckpointError("manifest.sha256 does not name manifest.json")
    data = _bytes(path, "manifest.json", limit=MANIFEST_BYTES, sha256=sums.pop("manifest.json"))
    manifest = _decode("manifest.json", data)
    entries = manifest.get("files")
    if not isinstance(entries, dict) or set(entries) != set(sums) or "info.json" not in entries:
        raise CheckpointError("manifest.json and manifest.sha256 do not name the same files")
    tensors: dict[str, dict[str, Array]] = {}
    info: dict[str, Any] = {}
    for name, entry in entries.items():
        size = entry.get("size") if isinstance(entry, dict) else None
        if type(size) is not int or entry.get("sha256") != sums[name]:
            raise CheckpointError(f"manifest.json says nothing sensible about {name}")
        if name != "info.json" and not name.endswith(".safetensors"):
            raise CheckpointError(f"manifest.json names {name}: only info.json and *.safetensors are ever read")
        data = _bytes(path, name, size=size, sha256=sums[name])
        if name == "info.json":
            info = _decode(name, data)
        else:
            tensors[name.removesuffix(".safetensors")] = current_names(_unpack(name, data))
    if step is None:
        step = manifest.get("step")  # a copy under another name
    if type(step) is not int or manifest.get("step") != step or info.get("step") != step:
        raise CheckpointError("its name, manifest.json and info.json do not say the same step")
    if not isinstance(info.get("info"), dict):
        raise CheckpointError("info.json holds no info")
    return Checkpoint(step, tensors, info["info"], path, [])


def _bytes(folder: Path, name: str, limit: int | None = None, size: int | None = None, sha256: str = "") -> bytes:
    """Content of an ordinary file of that size (or at most `limit` bytes) and with that checksum."""
    path = folder / name
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):  # a link leads elsewhere, a pipe never ends
            raise CheckpointError(f"{name} is not an ordinary file")
        if size is not None and status.st_size != size:
            raise CheckpointError(f"{name} has {status.st_size} bytes, the manifest says {size}")
        if limit is not None and status.st_size > limit:
            raise CheckpointError(f"{name} has {status.st_size} bytes, more than any manifest needs")
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{name} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read ({error.strerror})") from None
    if sha256 and _sha256(data) != sha256:
        raise CheckpointError(f"{name} does not match its sha256")
    return data


# --- the folder


def _step_of(path: Path) -> int | None:
    match = _STEP.fullmatch(path.name)
    return int(match[1]) if match else None


def _steps(root: Path) -> list[tuple[int, Path]]:
    """(step, path) of everything that carries a checkpoint's name, or was just being replaced."""
    try:
        found = [(_step_of(path), path) for path in root.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [(step, path) for step, path in found if step is not None]


def _point(root: Path, which: str, step: int) -> None:
    """Let the text file `which`, latest or best, name the checkpoint of `step`."""
    _write(root / f".tmp-{which}", f"step-{step:012d}\n".encode())
    os.replace(root / f".tmp-{which}", root / which)
    _sync_folder(root)


def _named(root: Path, which: str, warnings: list[str]) -> int | None:
    """The step that the text file `which` names."""
    try:
        text = _bytes(root, which, limit=100).decode("ascii", "replace").removesuffix("\n")
    except CheckpointError as error:
        warnings.append(f"{root / which}: {error}; the checkpoint with the highest step is tried first")
        return None
    match = _STEP.fullmatch(text)
    if not match or text.startswith("."):
        warnings.append(f"{root / which} names {text!r:.40}, which is no checkpoint; the highest step is tried first")
        return None
    return int(match[1])


def _sweep(root: Path) -> None:
    """Remove what killed writers left, and put back a checkpoint whose replacement never arrived."""
    for path in list(root.iterdir()):
        if path.name.startswith(".replaced-") and _step_of(path) is not None:
            original = root / path.name.removeprefix(".replaced-")
            if os.path.lexists(original):
                _delete(path)
            else:
                path.rename(original)
        elif path.name.startswith((".tmp-", ".trash-")):
            _delete(path)


def _delete(path: Path) -> None:
    """Remove a file or a tree; what cannot be removed stays for the next sweep."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
