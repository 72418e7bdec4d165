"""`make`: a batch of environments by id, on the processor or a GPU."""

from __future__ import annotations

from typing import Any

from ..configs.suggest import suggest
from .batch import BatchEnv
from .names import is_external
from .registry import make_world

DEVICES = ("cpu", "cuda")


def make(
    id: str,
    config: dict[str, Any] | None = None,
    num_envs: int = 1,
    seed: int = 0,
    threads: int | None = None,
    workers: int | None = None,
    timeout: float | None = None,
    device: str = "cpu",
) -> BatchEnv:
    """N copies of the environment `id`: one of our worlds, or an external one (`CartPole-v1`, `module:Id`, `module:function`).

    `workers` and `timeout` are for external ones: `ExternalBatch` explains them. They may stand in `config` instead.
    `device` "cuda" steps one of our worlds on a GPU, with the same results. Raises ValueError where there is none.
    """
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}{suggest(device, list(DEVICES))}")
    if device != "cpu" and is_external(id):
        raise ValueError(f"environment {id} is not ours and runs on the CPU only: take device 'cpu'")
    if is_external(id):
        from .external.batch import ExternalBatch

        return ExternalBatch(id, config or {}, num_envs=num_envs, seed=seed, workers=workers, timeout=timeout)
    if workers or timeout:
        raise ValueError(f"world {id} runs in threads of this process: leave out workers and timeout")
    world = make_world(id, config)
    if device == "cuda":
        from .engine.cuda import CudaEngine

        return CudaEngine(world, num_envs=num_envs, seed=seed, id=id)
    from .engine.engine import Engine

    return Engine(world, num_envs=num_envs, seed=seed, threads=threads, id=id)
