"""Choosing an agent while it trains: evaluations on held-out episodes, the best one so far, and when to stop.

Everything here is a function of the configuration and of the agent's parameters, so that a run which was killed and resumed
chooses the same checkpoint and stops at the same update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...agents.protocol import Agent
from ...agents.registry import make_agent
from ...configs.schema import RunConfig
from ...envs.make import make
from ...store.run_folder import RunFolder
from .episodes import run_episodes

SEED = 2_000_000  # of the episodes: neither those of the training nor those of the final evaluation (1,000,000)


class Selection:
    """Evaluates every `every` updates (0: never) and remembers the best mean return, the first one where two are equal."""

    def __init__(self, config: RunConfig) -> None:
        self.every, self.episodes, self.patience = config.eval_every, config.eval_every_episodes, config.patience
        self.env, self.env_options = config.env_id, config.env_options
        self.agent, self.agent_options = config.agent_name, config.agent_options
        self.best: float | None = None  # mean return
        self.best_step = 0  # environment steps
        self.worse = 0  # evaluations since the best one
        self.stopped = False  # there were `patience` of them
        self.improved = False  # the last evaluation was the best; its checkpoint is still to be written
        self._player: Agent | None = None

    def due(self, done: int, last: bool) -> bool:
        """Whether to evaluate after update `done`; always after the last one."""
        return self.every > 0 and (last or done % self.every == 0)

    def evaluate(self, agent: Agent, step: int, say: Callable[[str], None]) -> dict[str, float]:
        """Play held-out episodes greedily, by a copy: the training's random numbers stay as they are. Returns figures.

        An error in an evaluation costs a line and that evaluation, not the training.
        """
        try:
            result = run_episodes(self._copy(agent), self.env, self.env_options, self.episodes, SEED, lines=False)
        except Exception as error:
            line = next(iter(str(error).strip().splitlines()), "")
            say(f"evaluation at {step:,} steps failed: {type(error).__name__}: {line}"[:300])
            return {}
        mean = float(result.returns.mean())
        self.improved = self.best is None or mean > self.best
        if self.improved:
            self.best, self.best_step, self.worse = mean, step, 0
        else:
            self.worse += 1
            self.stopped = 0 < self.patience <= self.worse
        return {
            "eval/return_mean": mean, "eval/return_std": float(result.returns.std()),
            "eval/length_mean": float(result.lengths.mean()),
        }  # fmt: skip

    def _copy(self, agent: Agent) -> Agent:
        if self._player is None:
            env = make(self.env, self.env_options, num_envs=1)
            self._player = make_agent(self.agent, self.agent_options, env, 0)
            env.close()
        self._player.load_state_dict(agent.state_dict())
        return self._player

    def mark(self, run: RunFolder) -> None:
        """Let `best` in the run's folder name what `best` is here, once its checkpoint has been written."""
        if self.every:
            run.mark_best(None if self.best is None else self.best_step)
            self.improved = False

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "worse": self.worse, "stopped": self.stopped}

    def restore(self, state: object) -> None:
        """Go on from what `state` gave; a checkpoint without one is of a run that did not evaluate."""
        if isinstance(state, dict):
            self.best, self.best_step = state.get("best"), int(state.get("best_step", 0))
            self.worse, self.stopped = int(state.get("worse", 0)), bool(state.get("stopped"))

    def summary(self) -> dict[str, Any]:
        """What the run's summary says of it."""
        if self.best is None:
            return {}
        return {"best_return": self.best, "best_env_steps": self.best_step, "stopped_early": self.stopped}
