"""Training: one loop for every agent and every environment, that can be killed at any moment and goes on exactly."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...agents.protocol import Agent, NonFinite
from ...agents.registry import make_agent
from ...configs.loader import dump
from ...configs.schema import RunConfig
from ...envs.batch import BatchEnv
from ...envs.make import make
from ...envs.names import load_plugin_files
from ...store import checkpoint
from ...store.json_files import read_json, write_json
from ..live.run_view import Live
from ..live.view import View
from .collect.make import collector_of
from .evaluate import yardstick_sample
from .lock import one_process, remove_unused
from .machine import choose_threads, git_commit, versions, where
from .signals import Interrupted, stop_on_signals
from .tracking import Tracker


def build(config: RunConfig) -> tuple[BatchEnv, Agent, int]:
    """The environment, the untrained agent, and how many threads it works on."""
    load_plugin_files(config.plugins)
    threads = config.threads or choose_threads(config.num_envs)
    size = {"num_envs": config.num_envs, "seed": config.seed, "threads": threads}
    env = make(config.env_id, config.env_options, **size, device=config.device)
    return env, make_agent(config.agent_name, config.agent_options, env, config.seed, threads, config.device), threads


def train(config: RunConfig, folder: Path, live: View | bool | None = None, resume: bool = False) -> dict[str, Any]:
    """Train as `config` says, in `folder`; with `resume` go on from its newest intact checkpoint. Returns the summary.

    `live`: None chooses a view for the terminal, False shows nothing. Raises Interrupted after a signal (saved first),
    NonFinite when a NaN or infinity appears (nothing is saved then: the last checkpoint is still good),
    ValueError where another process works in `folder`.
    """
    fresh = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with one_process(folder):
            return _train(config, folder, live, resume)
    except BaseException:
        if fresh:
            remove_unused(folder)
        raise


def _train(config: RunConfig, folder: Path, live: View | bool | None, resume: bool) -> dict[str, Any]:
    env, agent, threads = build(config)
    config = config.model_copy(update={"threads": threads})
    per_update = config.num_envs * agent.num_steps
    updates = config.steps // per_update  # the budget is kept
    if updates < 1:
        raise ValueError(
            f"steps={config.steps:,} is less than one update of {per_update:,} ({config.num_envs} copies x {agent.num_steps} "
            "steps): raise steps, or lower num_envs or agent.num_steps"
        )
    done, seconds, episodes = 0, 0.0, 0
    offsets: dict[str, int] = {}
    notes: list[str] = []
    before = read_json(folder / "summary.json")
    if resume:
        found = checkpoint.load(folder)
        notes += found.warnings
        done, seconds, episodes, offsets = counters(found)
        if done >= updates and before.get("status") == "finished":
            raise ValueError(f"run {folder} is finished: {done * per_update:,} of {config.steps:,} steps are done")
        try:
            agent.load_state_dict(found.tensors["agent"])  # it checks its arrays, of which some may have grown
        except ValueError as error:
            raise ValueError(f"checkpoint {found.path.name}: {error}") from None
        env.reset(config.seed)
        env.set_state(found.tensors["env"])
        notes.append(f"resumed at {done * per_update:,} steps from {found.path.name}")
    else:
        if (folder / "metrics.jsonl").exists():
            raise ValueError(f"run {folder} exists already: resume it, or name another folder")
        env.reset(config.seed)
        (folder / "config.yaml").write_text(dump(config))
    known: Any = before.get("yardstick")
    whole = isinstance(known, dict) and all(type(known.get(key)) is float for key in ("random", "optimal"))
    yardstick = known if whole and isinstance(known.get("meaning"), str) else yardstick_sample(config)
    summary: dict[str, Any] = {
        "status": "running", "env_steps": done * per_update, "seconds": seconds, "versions": versions(),
        "git_commit": git_commit(), "device": where(config.device), "threads": config.threads, "yardstick": yardstick,
    }  # fmt: skip
    write_json(folder / "summary.json", summary)

    tracker = Tracker(folder, config.model_dump(mode="json"), list(config.track), config.project, config.name, resume)
    if resume:
        tracker.truncate(offsets)
    collector = collector_of(env, agent, config.device, updates * per_update)
    collector.begin(env.obs)
    if resume:
        collector.set_state(found.tensors["cohort"])
    if live is None:
        title = f"{config.agent['name']} on {config.env['id']}, seed {config.seed}"
        lines = (yardstick["random"], yardstick["optimal"], yardstick["meaning"]) if yardstick else None
        live = Live(config.steps, title, lines)
    view = None if isinstance(live, bool) else live

    def say(line: str) -> None:
        view.note(line) if view else print(line, file=sys.stderr)

    def save() -> None:
        info = {"updates": done, "seconds": seconds, "episodes": episodes, "offsets": tracker.offset()}
        tensors = {"agent": agent.state_dict(), "env": env.get_state(), "cohort": collector.get_state()}
        checkpoint.save(folder, done * per_update, tensors, info, config.keep_checkpoints)

    def finish(status: str) -> dict[str, Any]:
        summary.update(status=status, env_steps=done * per_update, seconds=seconds)
        write_json(folder / "summary.json", summary)
        return summary

    saved_at = time.monotonic()
    try:
        with stop_on_signals() as stop, view or _no_view():
            for note in [*notes, *([agent.note] if getattr(agent, "note", "") else [])]:  # type: ignore[attr-defined]
                say(note)
            if not resume:
                save()  # a run can be resumed from its first moment on
            while done < updates:
                began = time.perf_counter()
                batch = collector.rollout(agent.num_steps)
                collected = time.perf_counter()
                metrics = agent.learn(batch, done / updates)
                learned = time.perf_counter() - collected + collector.learn_seconds
                check_metrics(metrics)
                done += 1
                statistics = collector.pop_statistics()
                episodes += int(statistics["episodes"])
                row = {"updates": done, "env_steps": done * per_update, **statistics, **metrics}
                world, policy = collector.pop_seconds()
                spent = time.perf_counter() - began
                seconds += spent
                timing = {
                    "updates": done, "env_steps": done * per_update, "seconds": seconds,
                    "steps_per_second": per_update / spent, "world_s": world, "policy_s": policy, "learn_s": learned,
                }  # fmt: skip
                tracker.log(row, timing)
                for line in tracker.news():
                    say(line)
                if view:
                    view.update(row, timing)
                due = config.checkpoint_updates and done % config.checkpoint_updates == 0
                late = not config.checkpoint_updates and time.monotonic() - saved_at > config.checkpoint_seconds
                if due or late or stop.signum or done == updates:
                    save()
                    saved_at = time.monotonic()
                if stop.signum:
                    finish("interrupted" if done < updates else "finished")
                    raise Interrupted(stop.signum)
        return finish("finished")
    except NonFinite as error:
        finish("failed")
        raise NonFinite(f"update {done + 1}: {error}") from None
    except Interrupted:
        raise
    except BaseException:
        finish("failed")
        raise
    finally:
        for line in tracker.close():
            say(line)
        env.close()


def counters(found: checkpoint.Checkpoint) -> tuple[int, float, int, dict[str, int]]:
    """Updates, seconds, episodes and file offsets in a checkpoint. Raises CheckpointError if it is not of a run."""
    info, offsets = found.info, found.info.get("offsets")
    whole = all(type(info.get(key)) is int for key in ("updates", "episodes"))
    named = isinstance(offsets, dict) and all(type(offset) is int for offset in offsets.values())
    groups = {"agent", "env", "cohort"} <= found.tensors.keys()
    if not (whole and named and groups and isinstance(info.get("seconds"), (int, float))):
        raise checkpoint.CheckpointError(f"checkpoint {found.path.name} is not of a training run: train it again")
    return info["updates"], float(info["seconds"]), info["episodes"], dict(offsets or {})


@contextmanager
def _no_view() -> Iterator[None]:
    yield


def check_metrics(metrics: dict[str, float]) -> None:
    """Raise NonFinite for the first metric that is not finite: an agent that does not look itself is caught here."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NonFinite(f"{name} is {value}")
