"""One external environment, Gymnasium's or PettingZoo's, as the loop drives it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import gymnasium
from gymnasium.spaces import Box, Discrete

from ...store.arrays import Array
from .spaces import _action, _flatten, _observation


class Facts(NamedTuple):
    """What a batch must know of an environment."""

    agents: int
    observation: Box  # of one agent, as agents see it
    action: Discrete | Box  # of one agent, as agents see it
    theirs: Any  # Discrete or Box: the action space as the environment has it
    time_limit: int  # steps; 0: none that we know of


class Copy(Protocol):
    """One environment with A agents: `reset` and `step` write into rows of the batch's buffers."""

    facts: Facts
    env: Any

    def reset(self, seed: int, obs: Array) -> None:
        """Begin an episode; `obs`: (A, ...)."""
        ...

    def step(self, action: Array, obs: Array, reward: Array) -> tuple[bool, bool]:
        """(terminated, truncated) after `action` (A, ...) of the environment's own space; fills `obs` and `reward` (A,)."""
        ...


class GymCopy:
    """A `gymnasium.Env`: one agent."""

    def __init__(self, id: str, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env
        box, flat = _observation(env.observation_space, id)
        limit = env.spec.max_episode_steps or 0 if env.spec else 0
        self.facts = Facts(1, box, _action(env.action_space, id), env.action_space, limit)
        self._flatten = _flatten(env.observation_space) if flat else None
        self._whole = isinstance(env.action_space, Discrete)

    def reset(self, seed: int, obs: Array) -> None:
        seen = self.env.reset(seed=seed)[0]
        obs[0] = seen if self._flatten is None else self._flatten(seen)

    def step(self, action: Array, obs: Array, reward: Array) -> tuple[bool, bool]:
        # A copy: an environment may keep the array that it was given. As int a number passes Discrete's check ten times faster.
        theirs = int(action[0]) if self._whole else action[0].copy()
        seen, reward[0], terminated, truncated, _ = self.env.step(theirs)
        obs[0] = seen if self._flatten is None else self._flatten(seen)
        return bool(terminated), bool(truncated and not terminated)


class ParallelCopy:
    """A PettingZoo `ParallelEnv`: agents in the order of `possible_agents`, whose spaces must be the same.

    An agent that has left gets reward 0 and sees its last observation (zeros before it first appears), and what it
    does is ignored. The episode is over when nobody is left: truncated where those who were there last were all cut
    by a limit, else terminated.
    """

    def __init__(self, id: str, env: Any) -> None:
        self.env = env
        names = list(getattr(env, "possible_agents", None) or ())
        if not names:
            raise ValueError(f"environment {id} has no possible_agents: list the agents that it can have")
        for what, space_of in (("observation", env.observation_space), ("action", env.action_space)):
            for name in names[1:]:
                if space_of(name) != space_of(names[0]):
                    differ = f"{space_of(names[0])} and {space_of(name)}"
                    way_out = "wrap it so that all agents share one"
                    raise ValueError(f"environment {id}: {what} spaces of {names[0]} and {name} differ, {differ}: {way_out}")
        space = env.observation_space(names[0])
        box, flat = _observation(space, id)
        theirs = env.action_space(names[0])
        self.facts = Facts(len(names), box, _action(theirs, id), theirs, 0)
        self._row = {name: k for k, name in enumerate(names)}
        self._flatten = _flatten(space) if flat else None

    def _see(self, seen: dict[Any, Any], agents: Any, obs: Array) -> None:
        for agent in agents:
            if agent in seen:
                obs[self._row[agent]] = seen[agent] if self._flatten is None else self._flatten(seen[agent])

    def reset(self, seed: int, obs: Array) -> None:
        seen = self.env.reset(seed=seed)[0]
        if not self.env.agents:
            raise ValueError("reset() leaves no agents: fill self.agents there")
        obs[:] = 0
        self._see(seen, self.env.agents, obs)

    def step(self, action: Array, obs: Array, reward: Array) -> tuple[bool, bool]:
        given = {agent: action[self._row[agent]].copy() for agent in self.env.agents}
        seen, gained, ended, cut, _ = self.env.step(given)
        there = self.env.agents
        self._see(seen, {*given, *there}, obs)
        reward[:] = 0
        for agent in given:
            reward[self._row[agent]] = gained.get(agent, 0.0)
        if any(not (ended.get(agent) or cut.get(agent)) for agent in there):
            return False, False
        truncated = any(cut.get(agent) for agent in given) and not any(ended.get(agent) for agent in given)
        return not truncated, truncated


def adapt(id: str, env: Any) -> Copy:
    """`env` as a `Copy`. Raises ValueError, one line, for spaces that agents cannot have."""
    return GymCopy(id, env) if isinstance(env, gymnasium.Env) else ParallelCopy(id, env)
