"""Training: one loop for every agent and every environment, that can be killed at any moment and goes on exactly."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...agents.protocol import Agent, NonFinite, Noted
from ...agents.registry import make_agent
from ...configs.schema import RunConfig
from ...envs.batch import BatchEnv
from ...envs.make import make
from ...envs.names import load_plugin_files
from ...store.checkpoint import Checkpoint, CheckpointError
from ...store.run_folder import RunFolder
from ..live.run_view import Live
from ..live.view import View
from .collect.make import collector_of
from .evaluate import yardstick_sample
from .machine import choose_threads, git_commit, versions, where
from .selection import Selection
from .signals import Interrupted, stop_on_signals
from .tracking import Tracker


def train(config: RunConfig, folder: RunFolder | Path, live: View | bool | None = None, resume: bool = False) -> dict[str, Any]:
    """Train as `config` says, in `folder`; with `resume` go on from its newest intact checkpoint. Returns the summary.

    `live`: None chooses a view for the terminal, False shows nothing. Raises Interrupted after a signal (saved first),
    NonFinite when a NaN or infinity appears (nothing is saved then: the last checkpoint is still good),
    ValueError where another process works in `folder`.
    """
    run = RunFolder(folder)
    with run.alone():
        training = Training(config, run)
        training.restore() if resume else training.start(config)
        training.open(config, live, resume)
        with training.reported() as view, stop_on_signals() as stop, view:
            for note in training.notes:
                training.say(note)
            if not resume:
                training.save()  # a run can be resumed from its first moment on
            while not training.finished:
                training.update()
                if training.checkpoint_due(stop.signum != 0):
                    training.save()
                if stop.signum:
                    training.write_summary("finished" if training.finished else "interrupted")
                    raise Interrupted(stop.signum)
            return training.write_summary("finished")


def build(config: RunConfig) -> tuple[BatchEnv, Agent, int]:
    """The environment, the untrained agent, and how many threads it works on."""
    load_plugin_files(config.plugins)
    threads = config.threads or choose_threads(config.num_envs)
    size = {"num_envs": config.num_envs, "seed": config.seed, "threads": threads}
    env = make(config.env_id, config.env_options, **size, device=config.device)
    return env, make_agent(config.agent_name, config.agent_options, env, config.seed, threads, config.device), threads


class Training:
    """The state of a training, and what is done with it. `done` counts updates; an update is `per_update` environment steps."""

    def __init__(self, config: RunConfig, run: RunFolder) -> None:
        self.run = run
        self.env, self.agent, self.threads = build(config)
        self.seed, self.budget, self.device = config.seed, config.steps, config.device
        self.keep, self.every_updates, self.every_seconds = (
            config.keep_checkpoints, config.checkpoint_updates, config.checkpoint_seconds,
        )  # fmt: skip
        self.per_update = config.num_envs * self.agent.num_steps
        self.updates = config.steps // self.per_update  # the budget is kept
        if self.updates < 1:
            raise ValueError(
                f"steps={config.steps:,} is less than one update of {self.per_update:,} ({config.num_envs} environments x "
                f"{self.agent.num_steps} steps): raise steps, or lower num_envs or agent.num_steps"
            )
        self.done, self.seconds, self.episodes = 0, 0.0, 0
        self.offsets: dict[str, int] = {}
        self.notes: list[str] = []
        self.collector = collector_of(self.env, self.agent, self.device, self.updates * self.per_update)
        self.selection = Selection(config)
        self.tracker: Tracker | None = None
        self.view: View | None = None
        self.summary: dict[str, Any] = {}
        self.saved_at = time.monotonic()

    # ---- beginning ----

    def start(self, config: RunConfig) -> None:
        """Begin anew. Raises ValueError where the folder holds a run."""
        if self.run.has_metrics:
            raise ValueError(f"run {self.run} exists already: resume it, or name another folder")
        self.env.reset(self.seed)
        self.run.write_config(config.model_copy(update={"threads": self.threads}))
        self.collector.begin(self.env.obs)

    def restore(self) -> None:
        """Go on from the newest intact checkpoint. Raises ValueError where the run is finished, or where it does not fit."""
        found = self.run.checkpoint()
        self.notes += found.warnings
        self.done, self.seconds, self.episodes, self.offsets = counters(found)
        self.selection.restore(found.info.get("selection"))
        if self.finished and self.run.read_summary().get("status") == "finished":
            raise ValueError(f"run {self.run} is finished: {self.done * self.per_update:,} of {self.budget:,} steps are done")
        try:
            self.agent.load_state_dict(found.tensors["agent"])  # it checks its arrays, of which some may have grown
        except ValueError as error:
            raise ValueError(f"checkpoint {found.path.name}: {error}") from None
        self.env.reset(self.seed)
        self.env.set_state(found.tensors["env"])
        self.collector.begin(self.env.obs)
        self.collector.set_state(found.tensors["cohort"])
        self.selection.mark(self.run)
        self.notes.append(f"resumed at {self.done * self.per_update:,} steps from {found.path.name}")

    def open(self, config: RunConfig, live: View | bool | None, resume: bool) -> None:
        """Write the summary, and open the figures' files and the view."""
        known: Any = self.run.read_summary().get("yardstick")
        whole = isinstance(known, dict) and all(type(known.get(key)) is float for key in ("random", "optimal"))
        whole = whole and isinstance(known.get("meaning"), str)
        yardstick = known if whole else yardstick_sample(config.env_id, config.env_options, self.seed)
        self.summary = {
            "status": "running", "env_steps": 0, "seconds": 0.0, "versions": versions(), "git_commit": git_commit(),
            "device": where(self.device), "threads": self.threads, "yardstick": yardstick,
        }  # fmt: skip
        self.write_summary("running")
        shown = config.model_copy(update={"threads": self.threads}).model_dump(mode="json")
        self.tracker = Tracker(self.run, shown, list(config.track), config.project, config.name, resume)
        if resume:
            self.tracker.truncate(self.offsets)
        if live is None:
            title = f"{config.agent_name} on {config.env_id}, seed {self.seed}"
            lines = (yardstick["random"], yardstick["optimal"], yardstick["meaning"]) if yardstick else None
            live = Live(self.budget, title, lines)
        self.view = None if isinstance(live, bool) else live
        if isinstance(self.agent, Noted) and self.agent.note:
            self.notes.append(self.agent.note)

    # ---- one update, one checkpoint ----

    @property
    def finished(self) -> bool:
        return self.done >= self.updates or self.selection.stopped

    def update(self) -> None:
        """Collect a rollout, learn from it, evaluate where that is due, and write the figures."""
        began = time.perf_counter()
        batch = self.collector.rollout(self.agent.num_steps)
        collected = time.perf_counter()
        metrics = self.agent.learn(batch, self.done / self.updates)
        learned = time.perf_counter() - collected + self.collector.learn_seconds
        check_metrics(metrics)
        self.done += 1
        statistics = self.collector.pop_statistics()
        self.episodes += int(statistics["episodes"])
        counted = {"updates": self.done, "env_steps": self.done * self.per_update}
        world, policy = self.collector.pop_seconds()
        spent = time.perf_counter() - began
        self.seconds += spent
        row = {**counted, **statistics, **metrics}
        if self.selection.due(self.done, self.done == self.updates):
            row |= self.selection.evaluate(self.agent, self.done * self.per_update, self.say)
        timing = {
            **counted, "seconds": self.seconds, "steps_per_second": self.per_update / spent,
            "world_s": world, "policy_s": policy, "learn_s": learned,
        }  # fmt: skip
        assert self.tracker
        self.tracker.log(row, timing)
        for line in self.tracker.news():
            self.say(line)
        if self.view:
            self.view.update(row, timing)

    def checkpoint_due(self, stopping: bool) -> bool:
        """Every so many updates, or every so many seconds; at the end, at a stop, and where the agent is the best so far."""
        if stopping or self.finished or self.selection.improved:
            return True
        if self.every_updates:
            return self.done % self.every_updates == 0
        return time.monotonic() - self.saved_at > self.every_seconds

    def save(self) -> None:
        assert self.tracker
        info = {"updates": self.done, "seconds": self.seconds, "episodes": self.episodes, "offsets": self.tracker.offset()}
        if self.selection.every:
            info["selection"] = self.selection.state()
        tensors = {"agent": self.agent.state_dict(), "env": self.env.get_state(), "cohort": self.collector.get_state()}
        self.run.save(self.done * self.per_update, tensors, info, self.keep)
        self.selection.mark(self.run)
        self.saved_at = time.monotonic()

    # ---- telling ----

    def say(self, line: str) -> None:
        self.view.note(line) if self.view else print(line, file=sys.stderr)

    def write_summary(self, status: str) -> dict[str, Any]:
        self.summary.update(status=status, env_steps=self.done * self.per_update, seconds=self.seconds)
        self.summary.update(self.selection.summary())
        self.run.write_summary(self.summary)
        return self.summary

    @contextmanager
    def reported(self) -> Iterator[View]:
        """Yield the view. Whatever ends the training, the summary says so and the files are closed."""
        try:
            yield self.view or _NoView()
        except NonFinite as error:
            self.write_summary("failed")
            raise NonFinite(f"update {self.done + 1}: {error}") from None
        except Interrupted:
            raise
        except BaseException:
            self.write_summary("failed")
            raise
        finally:
            assert self.tracker
            for line in self.tracker.close():
                self.say(line)
            self.env.close()


class _NoView:
    """Shows nothing."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, metrics: Any, timing: Any) -> None:
        pass

    def note(self, line: str) -> None:
        pass


def counters(found: Checkpoint) -> tuple[int, float, int, dict[str, int]]:
    """Updates, seconds, episodes and file offsets in a checkpoint. Raises CheckpointError if it is not of a run."""
    info, offsets = found.info, found.info.get("offsets")
    whole = all(type(info.get(key)) is int for key in ("updates", "episodes"))
    named = isinstance(offsets, dict) and all(type(offset) is int for offset in offsets.values())
    groups = {"agent", "env", "cohort"} <= found.tensors.keys()
    if not (whole and named and groups and isinstance(info.get("seconds"), (int, float))):
        raise CheckpointError(f"checkpoint {found.path.name} is not of a training run: train it again")
    return info["updates"], float(info["seconds"]), info["episodes"], dict(offsets or {})


def check_metrics(metrics: dict[str, float]) -> None:
    """Raise NonFinite for the first metric that is not finite: an agent that does not look itself is caught here."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NonFinite(f"{name} is {value}")
