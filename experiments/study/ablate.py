"""What a part of an agent contributes: the same training with the part, with it untrained, and without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...agents.registry import agent_config
from ...agents.slots.spec import Part
from ...configs.schema import RunConfig
from ...store.run_folder import RunFolder
from ..run.machine import git_commit, processor, versions
from .compare import Result, compare_results
from .groups import check_arms, say_on_stderr, train_arms

ARMS = ("trained", "untrained", "none")


def slots_of(config: RunConfig) -> dict[str, Any]:
    """Slots of the agent that hold something, with it: {"belief": {"name": "gru", ...}}; several parts are a list."""
    options = agent_config(config.agent_name, config.agent_options)
    found: dict[str, Any] = {}
    for name, value in options:
        if isinstance(value, Part):
            found[name] = value.model_dump(exclude_defaults=True)
        elif isinstance(value, tuple) and value and all(isinstance(part, Part) for part in value):
            found[name] = [part.model_dump(exclude_defaults=True) for part in value]
    return found


def arms_of(
    config: RunConfig, slot: str, arms: Sequence[str] = ARMS, others: Mapping[str, Any] | None = None
) -> dict[str, RunConfig]:
    """`config` for each arm, by name. `others`: more arms, by name what fills the slot in them.

    Raises ValueError where the agent has nothing in `slot`, or an arm is unknown.
    """
    filled = slots_of(config)
    if slot not in filled:
        known = f"it has {', '.join(filled)}" if filled else "no slot of it is filled"
        raise ValueError(f"agent {config.agent_name} has nothing in slot {slot!r} that could be left out: {known}")
    part = filled[slot]
    still = [{**one, "untrained": True} for one in part] if isinstance(part, list) else {**part, "untrained": True}
    fillings: dict[str, Any] = {"trained": part, "untrained": still, "none": None}
    for arm in arms:
        if arm not in fillings:
            raise ValueError(f"no arm {arm!r}: there are {', '.join(ARMS)}")
    chosen = {arm: fillings[arm] for arm in arms} | dict(others or {})
    made = {}
    for arm, filling in chosen.items():
        agent = {**config.agent, slot: filling}
        agent_config(str(agent["name"]), {k: v for k, v in agent.items() if k != "name"})  # which refuses what cannot be
        made[arm] = config.model_copy(update={"agent": agent})
    return made


def ablate(
    arms: Mapping[str, RunConfig],
    seeds: Sequence[int],
    folder: Path,
    live: bool | None = None,
    say: Callable[[str], None] = say_on_stderr,
) -> tuple[dict[str, Any], list[Result]]:
    """Train every arm with all `seeds` in `folder`/ARM, evaluate and compare them with the first; write ablation.json.

    Call it under `if __name__ == "__main__":`, as `train_group`. A second call goes on where a first one was stopped. Returns
    the document and what can be drawn. Raises Interrupted after a signal (everything is saved first), ValueError where
    `folder` holds another budget or other options.
    """
    study = RunFolder(folder)
    check_arms(arms, seeds, study)
    with study.alone():
        found = train_arms(arms, seeds, study, live, say)
    document = {"steps": next(iter(arms.values())).steps, **compare_results(found), "device": processor()}
    document |= {"versions": versions(), "git_commit": git_commit()}
    study.write_ablation(document)
    return document, found
