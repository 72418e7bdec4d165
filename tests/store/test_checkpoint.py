"""Checkpoints: what goes in comes out, every fault is found and named, no kill loses a run, nothing is executed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gumdrop.store import checkpoint
from gumdrop.store.checkpoint import CheckpointError, digest, load, require, save

FILES = ["agent.safetensors", "env.safetensors", "info.json", "manifest.json", "manifest.sha256"]


@pytest.fixture(autouse=True, scope="module")
def _quick_disk() -> Iterator[None]:
    """Waiting for the disk matters when power fails, which no test here does; the order is tested with a mock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


def tensors(step: int) -> dict[str, dict[str, Any]]:
    """Small tensors that depend on the step."""
    rng = np.random.default_rng(step)
    agent = {"weight": rng.normal(size=(5, 7)).astype(np.float32), "updates": np.array(step)}
    return {"agent": agent, "env": {"rng": rng.integers(0, 2**64, 6, np.uint64), "none": np.zeros((0, 3))}}


def write(folder: Path, *steps: int, keep: int = 3) -> list[Path]:
    return [save(folder, step, tensors(step), {"step": step, "big": 2**127 + step}, keep) for step in steps]


def sign(path: Path, **changes: Any) -> None:
    """Make the checksums of a tampered checkpoint right again, as an attacker would."""
    sums = {}
    files = {
        file.name: {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}
        for file in path.iterdir()
        if not file.name.startswith("manifest.")
    }
    manifest = json.loads((path / "manifest.json").read_text()) | {"files": files} | changes
    (path / "manifest.json").write_text(json.dumps(manifest))
    names = [*manifest["files"], "manifest.json"] if isinstance(manifest["files"], dict) else ["manifest.json"]
    for name in names:
        file = path / name
        sums[name] = hashlib.sha256(file.read_bytes() if file.is_file() else b"").hexdigest()
    lines = "".join(f"{value}  {name}\n" for name, value in sums.items()).encode()
    own = hashlib.sha256(lines).hexdigest()
    (path / "manifest.sha256").write_bytes(lines + f"# {own} of the lines above\n".encode())


# --- what goes in comes out


names = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__" and name.isprintable())
arrays = hnp.arrays(
    st.sampled_from([np.dtype(kind) for kind in checkpoint.KINDS]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
infos = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.dictionaries(names, arrays, max_size=4), max_size=3),
    st.dictionaries(st.text(), infos, max_size=4),
    st.integers(0, 10**13),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(tmp_path: Path, groups: dict[str, Any], info: dict[str, Any], step: int) -> None:
    shutil.rmtree(tmp_path)
    path = save(tmp_path, step, groups, info)
    found = load(tmp_path)
    assert (found.step, found.info, found.path, found.warnings) == (step, info, path, [])
    assert set(found.tensors) == set(groups)
    for key, group in groups.items():
        assert set(found.tensors[key]) == set(group)
        for name, array in group.items():
            back = found.tensors[key][name]
            assert back.dtype == array.dtype and back.shape == array.shape and back.flags.writeable
            assert back.tobytes() == array.tobytes()  # bits, so that NaN and -0.0 count too
    assert digest(found.tensors) == digest(groups)


def test_any_memory_layout_comes_back_in_order(tmp_path: Path) -> None:
    grid = np.arange(12.0).reshape(3, 4)
    group = {"fortran": np.asfortranarray(grid), "strided": grid[::2, ::-1], "big": grid.astype(">f8"), "number": 2.5}
    save(tmp_path, 1, {"agent": group}, {})
    back = load(tmp_path).tensors["agent"]
    for name in group:
        np.testing.assert_array_equal(back[name], group[name])
    assert back["big"].dtype == np.float64 and back["number"].shape == ()


def test_info_holds_random_states_and_odd_numbers(tmp_path: Path) -> None:
    state = np.random.default_rng(3).bit_generator.state
    save(tmp_path, 1, {}, {"rng": state, "best": float("-inf"), "mean": np.float32(0.5), "count": np.int64(7)})
    info = load(tmp_path).info
    assert info == {"rng": state, "best": float("-inf"), "mean": 0.5, "count": 7}
    assert type(info["count"]) is int


def test_sha256sum_understands_the_manifest(tmp_path: Path) -> None:
    if not shutil.which("sha256sum"):
        pytest.skip("sha256sum is not installed")
    (path,) = write(tmp_path, 1)
    done = subprocess.run(["sha256sum", "--strict", "-c", "manifest.sha256"], cwd=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == FILES[:-1]


@pytest.mark.parametrize(
    "groups, info, what",
    [
        ({"../evil": {}}, {}, "'../evil'"),
        ({".hidden": {}}, {}, "'.hidden'"),
        ({"a": {"x": np.array(["text"])}}, {}, "a/x"),
        ({"a": {"x": np.array([object()])}}, {}, "a/x"),
        ({"a": {"x": np.zeros(2, complex)}}, {}, "complex128"),
        ({"a": {"__metadata__": np.zeros(2)}}, {}, "__metadata__"),
        ({}, {"x": np.zeros(3)}, "ndarray"),
        ({}, {"x": {1, 2}}, "set"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(
    tmp_path: Path, groups: dict[str, Any], info: dict[str, Any], what: str
) -> None:
    with pytest.raises(CheckpointError, match="^[^\n]+$") as error:
        save(tmp_path, 1, groups, info)
    assert what in str(error.value)
    assert not list(tmp_path.iterdir())


def test_digest_sees_every_difference() -> None:
    group = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(0, np.int64)}
    others = [
        group | {"a": np.zeros((3, 2), np.float32)},
        group | {"a": np.zeros((2, 3), np.int32)},
        group | {"a": np.array([[0, 0, 0], [0, 0, -0.0]], np.float32)},
        group | {"b": np.zeros((0, 1), np.int64)},
        {"a": group["a"], "c": group["b"]},
        {"a": group["a"]},
        {"g": group},
    ]
    found = {digest(group), *map(digest, others)}
    assert len(found) == len(others) + 1
    assert digest({"b": group["b"], "a": np.asfortranarray(group["a"])}) == digest(group)


def test_require() -> None:
    group = {"w": np.zeros((2, 3), np.float32), "n": np.array(1)}
    expected: dict[str, Any] = {"w": ((2, 3), np.float32), "n": ((), "int64")}
    require(group, expected)
    for change, what in [
        ({"w": ((3, 2), np.float32)}, r"'w' is float32 \(2, 3\), needed is float32 \(3, 2\)"),
        ({"w": ((2, 3), np.float64)}, "float64"),
        ({"v": ((), "bool")}, "'v' is missing"),
    ]:
        with pytest.raises(CheckpointError, match=what):
            require(group, expected | change)
    with pytest.raises(CheckpointError, match="'n' is unknown"):
        require(group, {"w": expected["w"]})


# --- the folder


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_keeps_the_latest_and_sweeps_leftovers(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4, keep=2)
    root = tmp_path / "checkpoints"
    shutil.copytree(root / "step-000000000004", root / ".tmp-step-000000000009")
    (root / ".trash-step-000000000001").mkdir()
    (root / ".tmp-latest").write_text("half")
    assert load(tmp_path).step == 4
    write(tmp_path, 5, keep=2)
    assert listing(tmp_path) == ["latest", "step-000000000004", "step-000000000005"]
    assert (root / "latest").read_text() == "step-000000000005\n"


def test_a_run_resumed_from_an_older_checkpoint_drops_the_abandoned_future(tmp_path: Path) -> None:
    """Else the damaged newer ones would push the fresh one out, or be found later."""
    paths = write(tmp_path, 10, 20, 30)
    for path in paths[1:]:
        (path / "info.json").write_bytes(b"")
    assert load(tmp_path).step == 10
    write(tmp_path, 15, keep=1)
    assert listing(tmp_path) == ["latest", "step-000000000015"]
    assert load(tmp_path).step == 15


def test_same_step_again_replaces_it(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    save(tmp_path, 2, {"agent": {"new": np.ones(1)}}, {})
    found = load(tmp_path)
    assert found.step == 2 and set(found.tensors["agent"]) == {"new"}
    assert listing(tmp_path) == ["latest", "step-000000000001", "step-000000000002"]


def test_killed_between_the_two_renames_of_a_replacement(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 2)
    aside = path.rename(path.with_name(f".replaced-{path.name}"))
    assert load(tmp_path)[0:1] + (load(tmp_path).path,) == (2, aside)
    write(tmp_path, 3)
    assert listing(tmp_path) == ["latest", "step-000000000002", "step-000000000003"]


def test_latest_is_tried_first_and_may_be_missing_or_nonsense(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3)
    latest = tmp_path / "checkpoints" / "latest"
    latest.write_text("step-000000000002\n")
    assert load(tmp_path).step == 2
    for text in ["../../etc", "step-000000000009", "", "step-0000", "\x00\xff", "x" * 1000]:
        latest.write_text(text)
        found = load(tmp_path)
        assert found.step == 3 and len(found.warnings) == 1 and "latest" in found.warnings[0], text
    latest.unlink()
    assert load(tmp_path).step == 3


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in .*: the run was stopped before its first"):
        load(tmp_path)
    for path in write(tmp_path, 1, 2):
        (path / "env.safetensors").unlink()
    with pytest.raises(CheckpointError, match="^no intact .*step-0+2.*env.safetensors is missing.*1 more.*$"):
        load(tmp_path)


def test_a_full_disk_leaves_the_older_checkpoint_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)
    calls: list[int] = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, 2)
    assert listing(tmp_path) == ["latest", "step-000000000001"] and load(tmp_path).step == 1


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    rename, replace = os.rename, os.replace

    def moved(source: Any, target: Any) -> None:
        events.append(f"{Path(source).name} -> {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", lambda handle: events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name))
    monkeypatch.setattr(os, "rename", moved)
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(f"{Path(a).name} => {Path(b).name}"), replace(a, b)))
    write(tmp_path, 1)
    name = "step-000000000001"
    assert sorted(events[:5]) == FILES
    assert events[5:] == [
        f".tmp-{name}",
        f".tmp-{name} -> {name}",
        "checkpoints",
        ".tmp-latest",
        ".tmp-latest => latest",
        "checkpoints",
    ]


# --- every fault is found and named


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_found_and_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, 1, 2)[1]
    whole = (path / name).read_bytes()
    for length in sorted({0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 2, len(whole) - 1}):
        (path / name).write_bytes(whole[:length])
        check_previous_is_used(tmp_path, name)
    (path / name).write_bytes(whole + b"\n")
    check_previous_is_used(tmp_path, name)
    (path / name).write_bytes(whole)
    assert load(tmp_path).step == 2


@pytest.mark.parametrize("name", FILES)
def test_flipped_bit_is_found_and_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, 1, 2)[1]
    whole = (path / name).read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        (path / name).write_bytes(data)
        check_previous_is_used(tmp_path, name)


@pytest.mark.parametrize("name", FILES)
def test_missing_or_extraordinary_file_is_found_and_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, 1, 2)[1]
    whole = (path / name).read_bytes()
    (path / name).unlink()
    check_previous_is_used(tmp_path, name)
    os.mkfifo(path / name)  # reading it would never end
    check_previous_is_used(tmp_path, name)
    (path / name).unlink()
    (tmp_path / "elsewhere").write_bytes(whole)
    (path / name).symlink_to(tmp_path / "elsewhere")
    check_previous_is_used(tmp_path, name)
    (path / name).unlink()
    (path / name).mkdir()
    check_previous_is_used(tmp_path, name)


def check_previous_is_used(folder: Path, name: str) -> None:
    found = load(folder)
    assert found.step == 1 and digest(found.tensors) == digest(tensors(1))
    assert len(found.warnings) == 1 and "\n" not in found.warnings[0]
    assert found.warnings[0].startswith(f"checkpoint step-000000000002 is damaged: {name} "), found.warnings


# --- malice: checksums prove nothing against somebody who can write them


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


def bombs(folder: Path) -> dict[str, bytes]:
    """Files that do something when unpickled."""
    payload = pickle.dumps(Bomb(folder / "EXECUTED"))
    archive = folder / "archive"
    with zipfile.ZipFile(archive, "w") as zipped:  # the shape of a torch file
        zipped.writestr("archive/data.pkl", payload)
    return {"pickle": payload, "zip": archive.read_bytes()}


def test_the_bomb_works(tmp_path: Path) -> None:
    pickle.loads(bombs(tmp_path)["pickle"])
    assert (tmp_path / "EXECUTED").exists()


@pytest.mark.parametrize("kind", ["pickle", "zip"])
@pytest.mark.parametrize("signed", [False, True])
def test_pickles_in_place_of_tensors_are_never_executed(tmp_path: Path, kind: str, signed: bool) -> None:
    path = write(tmp_path, 1, 2)[1]
    (path / "agent.safetensors").write_bytes(bombs(tmp_path)[kind])
    if signed:
        sign(path)
    check_previous_is_used(tmp_path, "agent.safetensors")
    assert not (tmp_path / "EXECUTED").exists()


def test_files_that_do_not_belong_are_refused_or_ignored(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2)[1]
    (path / "agent.pkl").write_bytes(bombs(tmp_path)["pickle"])
    assert load(tmp_path).step == 2  # not in the manifest: not opened
    sign(path)
    check_previous_is_used(tmp_path, "manifest.json")
    assert not (tmp_path / "EXECUTED").exists()


@pytest.mark.parametrize("name", ["../step-000000000001/info.json", "/etc/passwd", "..", "", ".hidden", "a\\b", "a b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, 1, 2)[1]
    files = json.loads((path / "manifest.json").read_text())["files"]
    sign(path, files=files | {name: files["info.json"]})
    check_previous_is_used(tmp_path, "manifest.sha256")


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"schema": "1"},
        {"schema": None},
        {"step": 1},
        {"step": True},
        {"step": "2"},
        {"files": []},
        {"files": {}},
        {"files": {"info.json": None}},
        {"files": {"info.json": {"sha256": 1, "size": 2}}},
        {"files": {"info.json": {"sha256": "x", "size": -1}}},
    ],
)
def test_signed_nonsense_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write(tmp_path, 1, 2)[1]
    sign(path, **changes)
    found = load(tmp_path)
    assert found.step == 1 and len(found.warnings) == 1


@pytest.mark.parametrize("data", [b"", b"[]", b"[" * 100_000, b'{"schema": 1', b"\xff\xfe", b"9" * 5000, b"null"])
def test_signed_json_nonsense_is_refused(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path, 1, 2)[1]
    (path / "info.json").write_bytes(data)
    sign(path)
    check_previous_is_used(tmp_path, "info.json")


def test_a_huge_manifest_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2)[1]
    os.truncate(path / "manifest.sha256", 1 << 40)  # sparse
    check_previous_is_used(tmp_path, "manifest.sha256")


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_signed_garbage_tensors_load_or_are_refused(tmp_path: Path, data: st.DataObject) -> None:
    """The parser sees an attacker's bytes: whatever they are, the outcome is arrays or a CheckpointError."""
    shutil.rmtree(tmp_path)
    path = write(tmp_path, 1, 2)[1]
    whole = bytearray((path / "env.safetensors").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    (path / "env.safetensors").write_bytes(
        whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole
    )
    sign(path)
    found = load(tmp_path)
    assert found.step in (1, 2)
    assert found.step == 2 or found.warnings[0].split(": ")[1].startswith("env.safetensors ")


@pytest.mark.parametrize("kind", ["F8_E5M2", "BF16", "C128", "I4"])
def test_tensor_kinds_that_numpy_lacks_are_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, 1, 2)[1]
    header = json.dumps({"x": {"dtype": kind, "shape": [2], "data_offsets": [0, 4 if kind == "BF16" else 2]}}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(4 if kind == "BF16" else 2)
    (path / "agent.safetensors").write_bytes(data)
    sign(path)
    check_previous_is_used(tmp_path, "agent.safetensors")


def test_wrong_dtype_is_the_consumers_to_refuse(tmp_path: Path) -> None:
    path = write(tmp_path, 2)[0]
    (path / "agent.safetensors").write_bytes(safetensors.numpy.save({"weight": np.zeros((5, 7), np.int8)}))
    sign(path)
    with pytest.raises(CheckpointError, match="'weight' is int8"):
        require(load(tmp_path).tensors["agent"], {"weight": ((5, 7), np.float32)})


# --- kills


class Killed(BaseException):
    """Like a kill: no `except OSError` sees it, nothing is tidied up."""


@pytest.mark.parametrize("step", [1, 2])
def test_death_before_each_step_of_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Die before the k-th call that touches names or the disk, for each k; step 1 replaces the only checkpoint."""
    calls = {name: getattr(module, name) for module, name in [(os, "fsync"), (os, "rename"), (os, "replace")]}
    rmtree, count = shutil.rmtree, 0

    def counted(call: Any) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            nonlocal count
            if count == 0:
                raise Killed
            count -= 1
            return call(*args, **options)

        return run

    outcomes = []
    for k in range(30):
        folder = tmp_path / str(k)
        write(folder, 1)
        with monkeypatch.context() as patch:
            for name, call in calls.items():
                patch.setattr(os, name, counted(call))
            patch.setattr(shutil, "rmtree", counted(rmtree))
            count = k
            try:
                save(folder, step, {"agent": {"new": np.ones(1)}}, {}, keep=1)
                done = True
            except Killed:
                done = False
        found = load(folder)
        new = set(found.tensors) == {"agent"}
        assert new or digest(found.tensors) == digest(tensors(1))
        assert found.warnings == [] and (new or not done)
        outcomes.append(new)
        write(folder, 3, keep=1)
        assert listing(folder) == ["latest", "step-000000000003"]  # nothing is left lying about
        if done:
            break
    assert done and outcomes == sorted(outcomes) and outcomes.count(False) > 5


def writer(folder: Path, step: int) -> None:
    """Write checkpoints as fast as possible, forever; every third step twice, which replaces it."""
    while True:
        write(folder, *([step] if step % 3 else [step, step]), keep=2)
        step += 1


def test_100_kills_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked writer is killed with SIGKILL after 1 to 30 ms, 100 times: an intact checkpoint loads every time."""
    monkeypatch.setattr(os, "fsync", lambda handle: time.sleep(0.0003))  # a fast disk: most kills hit the middle
    rng = random.Random(7)
    write(tmp_path, 1)
    newest, leftovers = 1, 0
    for _ in range(100):
        pid = os.fork()
        if pid == 0:
            try:
                writer(tmp_path, newest + 1)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0.001, 0.030))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        leftovers += any(path.name.startswith(".") for path in (tmp_path / "checkpoints").iterdir())
        found = load(tmp_path)
        assert found.warnings == []
        assert found.step >= newest and found.info == {"step": found.step, "big": 2**127 + found.step}
        assert digest(found.tensors) == digest(tensors(found.step))
        newest = found.step
    assert newest > 10, "the writer hardly wrote"
    assert leftovers > 10, "the kills did not hit the writing"
