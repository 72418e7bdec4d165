"""A run's policy as a file that other programs run: ONNX or torch.export; written, run again and compared.

Inputs: `obs` (B, *observation) and, where the policy remembers, one `memory_NAME` (B, ...) for each part, zeros where an
episode begins. Outputs: `logits` (B, actions), or `mean` and `std` (B, D), or `q` (B, actions); `action`, the greedy one,
int64 (B,) or float32 (B, *shape) within the space's bounds; and `next_NAME` for each part of the memory. B is free.
Observations are those of the run's environment as `gd.make` shows them; its normaliser and encoder are inside.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...agents.protocol import Agent, Exportable, restart
from ...agents.saved import load_run
from ...configs.schema import RunConfig
from ...envs.batch import BatchEnv
from ...envs.checks.conformance import random_actions
from ...envs.make import make
from ...store.arrays import Array
from ...store.run_folder import RunFolder

SUFFIX = {"onnx": ".onnx", "torch-export": ".pt2"}
STREAMS, STEPS = 50, 20  # observations that a file is checked with: their product
TOLERANCE = 1e-5  # largest difference of a logit, mean, deviation or value

Outputs = dict[str, Array]
Runner = Callable[[Outputs], Outputs]  # inputs by name -> outputs by name


class ExportCheck(NamedTuple):
    """How a file's outputs compare with the agent's, on observations of its environment."""

    observations: int
    actions_differ: int  # greedy actions that are not the agent's
    difference: float  # the largest one of logits, means and deviations, or values


class Exported(NamedTuple):
    """What was written: the file, a JSON file beside it with spaces and names, and the check (None: nothing here runs it)."""

    path: Path
    sidecar: Path
    check: ExportCheck | None


def export_run(folder: Path, to: str = "onnx", path: Path | None = None) -> Exported:
    """Write the policy of a run's `deploy` checkpoint, and check the file.

    `path`: default is `policy.onnx` or `policy.pt2` in the folder. Raises ValueError, one line, for a format that is not known,
    an agent that is no network, a missing package, and for a file that does something else than the agent.
    """
    if to == "torchscript":
        raise ValueError("torchscript is deprecated in torch: take --to torch-export, or onnx")
    if to not in SUFFIX:
        raise ValueError(f"no format {to!r:.40}: known are {', '.join(SUFFIX)}")
    if to == "onnx" and importlib.util.find_spec("onnxscript") is None:
        raise ValueError("onnx needs onnxscript: `pip install gumdrop[export]`, or take --to torch-export")
    source = RunFolder(folder)
    path = path or source.path / f"policy{SUFFIX[to]}"
    if not path.parent.is_dir() or path.is_dir():
        raise ValueError(f"{path}: {'a folder, name a file' if path.is_dir() else 'its folder does not exist: make it first'}")
    agent, config, _ = load_run(source, "deploy")
    if not isinstance(agent, Exportable):
        raise ValueError(f"agent {config.agent_name} has no network to export: ppo, policy-gradient and dqn have")
    module = agent.policy_module()
    env = make(config.env_id, config.env_options, num_envs=STREAMS)
    try:
        if env.action_mask() is not None:
            raise ValueError(f"environment {config.env_id} has action masks: only policies without masks are exported")
        about = describe(module, env, config, source)
        traced = _traced(module, config)
        temporary = path.with_name(f".{path.name}.tmp")
        sidecar = path.with_suffix(".json")
        try:
            _write(traced, module, temporary, to, about)
            run = _runner(temporary, to, about)
            check = None if run is None else compare(run, agent, module, env, config.seed)
            if check is not None and (check.actions_differ or not check.difference <= TOLERANCE):
                raise ValueError(
                    f"{path.name} differs from the agent: {check.actions_differ} of {check.observations} actions, outputs by "
                    f"{check.difference:.2g}: nothing was written"
                )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sidecar.write_text(json.dumps(about, indent=2) + "\n")
    finally:
        env.close()
    return Exported(path, sidecar, check)


def describe(module: Any, env: BatchEnv, config: RunConfig, source: RunFolder) -> dict[str, Any]:
    """The sidecar: spaces, names and shapes of inputs and outputs (without B), and which run it is."""
    kind = str(module.dtype).removeprefix("torch.")
    memory = [
        {"name": f"memory_{name}", "shape": [*part.shape[1:]], "dtype": str(part.dtype).removeprefix("torch.")}
        for name, part in module.memory.items()
    ]
    return {
        "run": source.name, "env": config.env, "agent": config.agent, "seed": config.seed, "gumdrop": version("gumdrop"),
        "observation": str(env.observation_space), "action": str(env.action_space), "agents": env.num_agents,
        "inputs": [{"name": "obs", "shape": [*module.shape], "dtype": kind}, *memory],
        "outputs": [*module.outputs, *(f"next_{name}" for name in module.memory)],
        "memory_begins_with": 0,
    }  # fmt: skip


def _traced(module: Any, config: RunConfig) -> Any:
    """The module as torch's exported program, with a free batch size."""
    import torch

    rows = 3  # any number but 1, which torch would take for a constant
    example = (
        torch.zeros(rows, *module.shape, dtype=module.dtype),
        *(x.expand(rows, *x.shape[1:]).clone() for x in module.memory.values()),
    )
    free = {0: torch.export.Dim("batch")}
    shapes: Any = (free, tuple(free for _ in module.memory)) if module.memory else (free,)
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ValueError(f"agent {config.agent_name}: torch cannot trace this policy: {reason}") from None


def _write(traced: Any, module: Any, path: Path, to: str, about: dict[str, Any]) -> None:
    import torch

    with torch.no_grad(), _quiet():
        if to == "torch-export":
            with path.open("wb") as file:
                torch.export.save(traced, file, extra_files={"gumdrop.json": json.dumps(about)})
            return
        names = {"input_names": [part["name"] for part in about["inputs"]], "output_names": about["outputs"]}
        program = torch.onnx.export(traced, dynamo=True, verbose=False, optimize=True, **names)
        assert program is not None
        program.model.metadata_props["gumdrop"] = json.dumps(about)
        program.save(str(path), external_data=False)


def _runner(path: Path, to: str, about: dict[str, Any]) -> Runner | None:
    """What runs a written file; None where onnxruntime is not installed."""
    inputs, outputs = [part["name"] for part in about["inputs"]], about["outputs"]
    if to == "onnx":
        if importlib.util.find_spec("onnxruntime") is None:
            return None
        import onnxruntime

        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        return lambda given: dict(zip(outputs, session.run(outputs, given), strict=True))
    import torch

    with path.open("rb") as file, _quiet():
        module = torch.export.load(file).module()

    def run(given: Outputs) -> Outputs:
        with torch.no_grad():
            found = module(*(torch.from_numpy(given[name]) for name in inputs))
        return {name: x.numpy() for name, x in zip(outputs, found, strict=True)}

    return run


def compare(run: Runner, agent: Agent, module: Any, env: BatchEnv, seed: int) -> ExportCheck:
    """Run a file beside the agent and the module, each with a memory of its own, along episodes of the environment; actions are
    the agent's, one in ten a random one, so that many states are met."""
    import torch

    rng, agents = np.random.default_rng(seed), env.num_agents
    rows, steps = env.num_envs * agents, -(-STREAMS * STEPS // (env.num_envs * agents))
    kind = np.uint8 if module.dtype == torch.uint8 else np.float32
    fresh = {f"memory_{name}": np.zeros((rows, *x.shape[1:]), x.numpy().dtype) for name, x in module.memory.items()}
    names = [*module.outputs, *(f"next_{name}" for name in module.memory)]
    obs, carry = env.reset(seed), agent.initial(env.num_envs)
    theirs, ours = dict(fresh), dict(fresh)
    differ, difference = 0, 0.0
    for random in random_actions(env, steps, seed):
        seen = np.ascontiguousarray(obs.reshape(rows, *module.shape), kind)
        said = run({"obs": seen, **theirs})
        with torch.no_grad():
            wanted = module(torch.from_numpy(seen), *(torch.from_numpy(x) for x in ours.values()))
        reference = {name: x.numpy() for name, x in zip(names, wanted, strict=True)}
        action, carry, _ = agent.act(obs, carry, "greedy")
        got = said["action"].reshape(action.shape)
        close = got == action if action.dtype.kind == "i" else np.abs(got - action).reshape(rows, -1).max(1) <= TOLERANCE
        differ += int((~close).sum())
        difference = max(difference, *(float(np.abs(said[n] - reference[n]).max()) for n in module.outputs if n != "action"))
        theirs, ours = ({k: found[k.replace("memory_", "next_", 1)] for k in fresh} for found in (said, reference))
        chosen = rng.random((env.num_envs, 1, *[1] * (action.ndim - 2))) < 0.1
        step = env.step(np.where(chosen, random, action))
        restart(agent, carry, step)
        obs, ended = step.obs, np.repeat(step.terminated | step.truncated, agents)
        for memory in (theirs, ours):
            for name, part in memory.items():
                memory[name] = part.copy()
                memory[name][ended] = 0
    return ExportCheck(steps * rows, differ, difference)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's and onnxscript's messages to their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
