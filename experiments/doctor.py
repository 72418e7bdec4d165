"""Is this machine fit to train? Each check says ok, warn or fail, and the way out."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("gumdrop numpy numba torch gymnasium pettingzoo stable-baselines3 pydantic safetensors wandb tensorboard").split()
OPTIONAL = {"tensorboard": "pip install 'gumdrop[tensorboard]' for --track tensorboard"}


class Finding(NamedTuple):
    name: str
    status: str  # ok | warn | fail
    detail: str
    fix: str = ""  # the way out, where the status is not ok


def doctor() -> dict[str, Any]:
    """Examine this machine, in seconds: {"ok": bool, "checks": [{"name", "status", "detail", "fix"}]}."""
    checks: list[Callable[[], list[Finding]]] = [
        _versions,
        _processors,
        _gpu,
        _tracking,
        _kernel_cache,
        _disk,
        _plugins,
        _worlds,
        _checkpoints,
    ]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:  # what is broken here is exactly what we look for
            name = check.__name__.strip("_").replace("_", " ")
            first = (str(error).splitlines() or [""])[0]
            findings.append(Finding(name, "fail", f"{type(error).__name__}: {first}", "GUMDROP_DEBUG=1 shows where"))
            if os.environ.get("GUMDROP_DEBUG"):
                raise
    return {"ok": all(f.status != "fail" for f in findings), "checks": [f._asdict() for f in findings]}


def _versions() -> list[Finding]:
    found = [Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for package in PACKAGES:
        try:
            found.append(Finding(package, "ok", version(package)))
        except PackageNotFoundError:
            way = OPTIONAL.get(package)
            status = "warn" if way else "fail"
            found.append(Finding(package, status, "not installed", way or f"pip install {package}"))
    return found


def _processors() -> list[Finding]:
    import numba
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch_threads, numba_threads = torch.get_num_threads(), int(getattr(numba.config, "NUMBA_NUM_THREADS", 1))
    detail = f"{cores} cores for us, torch uses {torch_threads} threads, numba up to {numba_threads}"
    if max(torch_threads, numba_threads) > cores:
        way = f"set OMP_NUM_THREADS and NUMBA_NUM_THREADS to {cores}: threads that wait for a core are slow"
        return [Finding("threads", "warn", detail, way)]
    return [Finding("threads", "ok", detail)]


def _gpu() -> list[Finding]:
    import torch

    if torch.cuda.is_available():
        return [Finding("gpu", "ok", torch.cuda.get_device_name(0))]
    return [Finding("gpu", "ok", "none that torch can use; everything here runs on the processor")]


def _tracking() -> list[Finding]:
    """Only whether a key is there: it is not read."""
    mode = os.environ.get("WANDB_MODE", "")
    key = bool(os.environ.get("WANDB_API_KEY")) or _in_netrc("api.wandb.ai")
    state = f"{'a key' if key else 'no key'}, WANDB_MODE {mode or 'not set'}"
    if not key and mode not in ("offline", "disabled"):
        return [Finding("w&b", "ok", f"{state}: --track wandb keeps its files here", "`wandb login` to send them")]
    return [Finding("w&b", "ok", state)]


def _in_netrc(host: str) -> bool:
    import netrc

    try:
        return host in netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def _kernel_cache() -> list[Finding]:
    from ..native.cache import cache_folder

    folder = cache_folder()
    way = "point GUMDROP_CACHE to a folder that can be written: until then each start compiles anew"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return [Finding("kernel cache", "warn", f"{folder}: {error.strerror}", way)]
    return [Finding("kernel cache", "ok", str(folder))]


def _disk() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < 1:
        return [Finding("disk", "warn", f"{free:.1f} GiB free here", "make room, or choose another folder with --dir")]
    return [Finding("disk", "ok", f"{free:.0f} GiB free here")]


def _plugins() -> list[Finding]:
    from ..envs import registry

    found = [Finding("worlds", "ok", ", ".join(registry.worlds()))]
    for plugin in registry.plugin_errors():
        found.append(Finding(f"plugin {plugin.name}", "warn", plugin.reason, "mend or uninstall it"))
    return found


def _worlds() -> list[Finding]:
    """A copy of the bandit alone and among others, on one thread and on all: the same bits."""
    import numpy as np

    from ..envs.make import make
    from ..envs.rng import copy_seeds

    started = time.perf_counter()
    n, chosen = 1024, 700
    many = make("bandit", {"time_limit": 7}, num_envs=n, seed=5)
    alone = make("bandit", {"time_limit": 7}, num_envs=1, threads=1)
    alone.reset(copy_seeds(5, n)[chosen : chosen + 1])
    actions = np.random.default_rng(0).integers(0, 5, (20, n, 1))
    for t in range(20):
        crowd, one = many.step(actions[t]), alone.step(actions[t, chosen : chosen + 1])
        pairs = zip((crowd.obs, crowd.reward, crowd.truncated), (one.obs, one.reward, one.truncated), strict=True)
        if not all(np.array_equal(a[chosen], b[0]) for a, b in pairs):
            way = "delete the kernel cache and try again; if it stays, report it with the versions above"
            return [Finding("self-test: worlds", "fail", f"a copy differs at step {t} alone and among {n}", way)]
    seconds = time.perf_counter() - started
    return [Finding("self-test: worlds", "ok", f"a copy alone and among {n}: equal bits ({seconds:.1f} s)")]


def _checkpoints() -> list[Finding]:
    """Numbers written as a checkpoint come back the same."""
    import numpy as np

    from ..store import checkpoint

    started = time.perf_counter()
    generator = np.random.default_rng(0)
    tensors: dict[str, dict[str, Any]] = {
        "agent": {"w": generator.standard_normal((64, 64)).astype(np.float32), "n": np.arange(3)}
    }
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), 1, tensors, {"rng": 2**127 + 1})
        back = checkpoint.load(Path(folder))
    same = checkpoint.digest(back.tensors) == checkpoint.digest(tensors) and back.info == {"rng": 2**127 + 1}
    if not same:
        return [Finding("self-test: checkpoint", "fail", "what was read is not what was written", "check the disk")]
    seconds = time.perf_counter() - started
    return [Finding("self-test: checkpoint", "ok", f"written and read back equal ({seconds:.2f} s)")]
