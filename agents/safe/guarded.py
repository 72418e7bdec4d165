"""A policy that is watched: while a detector says that this is not what it was trained on, a fallback acts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ...store.random_state import generator_state, set_generator_state
from ..protocol import Agent, AgentConfig, Carry, Mode, Rollout, Spaces
from ..registry import agent, agent_config, agents, takes_masks
from .guard import EvidenceName, Guard, under


@agent("guarded")
class Guarded:
    """Acts as `policy` until an episode is flagged, then as `fallback` until it ends. Neither learns any more.

    To train it is to let the detector watch the policy at work: half of the run's updates fit the detector, a quarter measure
    its scores, the last quarter collects one number of each whole episode, from which the last update sets the threshold. So
    train it in the world that the policy was trained in; before the last update nothing is flagged. Of episodes like these
    `alpha` at most are ever flagged, which holds for the policy as it acts: `policy_mode` and `fallback_mode` say how, and
    whoever asks for greedy or sampled actions gets these.

    `policy` and `fallback` are run folders, or names of agents that need no training. A run's folder must stay where it is: it
    says what to build. The arrays are copied into this agent's own state. The fallback begins as at the start of an episode.
    """

    in_leaderboard: ClassVar[bool] = False  # it guards another agent, which has to be named

    masks: ClassVar[bool] = True

    class Config(AgentConfig):
        policy: str = Field("random", description="a run's folder, or the name of an agent that needs no training")
        policy_options: dict[str, Any] = Field(default_factory=dict, description="of a policy that is named")
        policy_mode: Mode = Field("greedy", description="how the policy acts, whatever is asked for")
        fallback: str = Field("random", description="as policy: acts in flagged episodes")
        fallback_options: dict[str, Any] = Field(default_factory=dict, description="of a fallback that is named")
        fallback_mode: Mode = Field("sample", description="how the fallback acts, whatever is asked for")
        detector: str = Field("mahalanobis", description="surprise, linear-surprise judge steps, others what is seen")
        detector_options: dict[str, Any] = Field(default_factory=dict, description="the detector's own")
        evidence: EvidenceName = Field("cusum", description="how the scores of an episode's steps are added up")
        drift: float = Field(0.5, ge=0, description="of cusum: deviations a step that are forgiven")
        alpha: float = Field(0.05, gt=0, lt=1, description="largest share of usual episodes that is flagged")
        num_steps: int = Field(32, ge=1, le=100_000, description="steps of each environment between updates")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config = config
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.policy = _loaded("policy", config.policy, config.policy_options, spaces, seed, threads)
        self.fallback = _loaded("fallback", config.fallback, config.fallback_options, spaces, seed + 1, threads)
        for what, part in (("policy", self.policy), ("fallback", self.fallback)):
            if spaces.masked and not takes_masks(type(part)):
                raise ValueError(f"agent guarded: its {what}, {part.name}, cannot use this environment's action masks")
        evidence = {"kind": config.evidence, "drift": config.drift}
        self.guard = Guard(config.detector, config.detector_options, evidence, config.alpha, spaces, seed)
        self.updates, self.armed = np.array(0, np.int64), np.array(False)

    @property
    def num_steps(self) -> int:
        return int(self.config.num_steps)

    def initial(self, n: int) -> dict[str, Array]:
        carry = {f"guard.{name}": array for name, array in self.guard.initial(n).items()}
        for part in ("policy", "fallback"):
            carry |= {f"{part}.{name}": array for name, array in (getattr(self, part).initial(n) or {}).items()}
        return carry

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        assert carry is not None
        o, guard = self.config, self.guard
        score, watched = guard.watch(obs, under(carry, "guard."))
        action, carry = _act(self.policy, "policy.", obs, carry, o.policy_mode, mask)
        alarm = guard.alarm(watched) if self.armed else np.zeros(len(obs), np.bool_)
        if alarm.any():
            other, carry = _act(self.fallback, "fallback.", obs, carry, o.fallback_mode, mask)
            for name, fresh in (self.fallback.initial(1) or {}).items():
                carry[f"fallback.{name}"][~alarm] = fresh
            action = np.where(alarm.reshape(-1, *[1] * (action.ndim - 1)), other, action)
        watched = guard.acted(obs, action, watched)
        carry = carry | {f"guard.{name}": array for name, array in watched.items()}
        # Environments: where an episode ends, its rows of the carry begin anew before the step is stored.
        extras = {"score": score, "peak": watched["peak"].copy(), "version": watched["version"].copy(), "alarm": alarm}
        return action, carry, extras

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        found: dict[str, float] = {}
        if progress < 0.5:
            found = self.guard.fit(batch, int(self.rng.integers(2**62)))
        elif progress < 0.75:
            self.guard.measure(batch)
        else:
            self.guard.collect(batch)
        done = int(self.updates)
        self.updates += 1
        if progress > 0 and round(done / progress) == done + 1:  # progress is done / all
            found["calibration_episodes"] = float(self.guard.calibrate())
            self.armed[...] = True
            threshold = self.guard.detector.threshold.threshold
            found |= {"threshold": threshold} if np.isfinite(threshold) else {}
        return {f"detector/{name}": value for name, value in found.items()} | {"armed": float(self.armed)}

    def state_dict(self) -> dict[str, Array]:
        parts: dict[str, Any] = {"policy": self.policy, "fallback": self.fallback, "guard": self.guard}
        state = {f"{part}/{name}": array for part, owner in parts.items() for name, array in owner.state_dict().items()}
        return state | {"updates": self.updates.copy(), "armed": self.armed.copy(), "rng": generator_state(self.rng)}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        from ...store.arrays import check_arrays

        parts: dict[str, Any] = {"policy/": self.policy, "fallback/": self.fallback, "guard/": self.guard}
        own = {name: array for name, array in state.items() if not name.startswith(tuple(parts))}
        mine = {"updates": self.updates, "armed": self.armed, "rng": generator_state(self.rng)}
        check_arrays(own, mine, "agent guarded")
        for prefix, owner in parts.items():
            owner.load_state_dict(under(state, prefix))
        self.updates[...], self.armed[...] = state["updates"], state["armed"]
        set_generator_state(self.rng, state["rng"])


def _act(
    player: Agent, prefix: str, obs: Array, carry: dict[str, Array], mode: Mode, mask: Array | None
) -> tuple[Array, dict[str, Array]]:
    """A part's action, and the carry with what it remembers."""
    action, after, _ = player.act(obs, under(carry, prefix) or None, mode, mask)
    return action, carry | {f"{prefix}{name}": array for name, array in (after or {}).items()}


def _loaded(what: str, source: str, options: dict[str, Any], spaces: Spaces, seed: int, threads: int) -> Agent:
    """The agent that a run trained, or that has this name. Raises ValueError, one line, where it does not fit the world."""
    from ...envs.make import make
    from ...store.run_folder import RunFolder
    from ..saved import load_run

    if source in agents():
        made: Agent = agents()[source](agent_config(source, options), spaces, seed, threads)
        return made
    run = RunFolder(source)
    if not run.is_run:
        run = RunFolder(Path("runs") / source)
    if not run.is_run:
        raise ValueError(f"agent guarded: {what}={source!r:.80} is neither a run's folder nor an agent's name")
    if options:
        raise ValueError(f"agent guarded: {what}={source!r:.80} is a run, which keeps its options: leave {what}_options out")
    config = run.config()
    env = make(config.env_id, config.env_options, num_envs=1)
    theirs = Spaces.of(env)
    env.close()
    if theirs[:3] != spaces[:3]:
        raise ValueError(
            f"agent guarded: {what}={source!r:.80} sees {theirs.observation}, does {theirs.action}, "
            f"this world has {spaces.observation}, {spaces.action}"
        )
    return load_run(run)[0]
