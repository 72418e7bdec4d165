"""One external environment, Gymnasium's or PettingZoo's, as the loop drives it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import gymnasium
from gymnasium.spaces import Box, Discrete

from ...store.arrays import Array
from .spaces import MASK, _action, _flatten, _observation, read_mask, split_mask


class ExternalSpaces(NamedTuple):
    """What a batch must know of an environment."""

    agents: int
    observation: Box  # of one agent, as agents see it
    action: Discrete | Box  # of one agent, as agents see it
    theirs: Any  # Discrete or Box: the action space as the environment has it
    time_limit: int  # steps; 0: none that we know of

    @property
    def choices(self) -> int:
        """Numbers in an action mask: the actions of a Discrete space, 0 for a Box."""
        return int(self.action.n) if isinstance(self.action, Discrete) else 0


class ExternalEnv(Protocol):
    """One environment with A agents: `reset` and `step` write into rows of the batch's buffers.

    The last thing they return is whether there were action masks: then `mask`, bool (A, actions), holds them. Made with
    `masks=False` an environment has none; one in an observation is then a part of it like others.
    """

    spaces: ExternalSpaces
    env: Any

    def reset(self, seed: int, obs: Array, mask: Array) -> bool:
        """Begin an episode; `obs`: (A, ...)."""
        ...

    def step(self, action: Array, obs: Array, reward: Array, mask: Array) -> tuple[bool, bool, bool]:
        """(terminated, truncated, masked) after `action` (A, ...) of the environment's own space; fills `obs`, `reward`."""
        ...


class GymEnv:
    """A `gymnasium.Env`: one agent. Its mask is observation["action_mask"] of a Dict, else info["action_mask"]."""

    def __init__(self, id: str, env: gymnasium.Env[Any, Any], masks: bool = True) -> None:
        self.env = env
        space, self._visible = env.observation_space, None
        if masks:
            space, self._visible = split_mask(space, env.action_space, id)
        box, flat = _observation(space, id)
        limit = env.spec.max_episode_steps or 0 if env.spec else 0
        self.spaces = ExternalSpaces(1, box, _action(env.action_space, id), env.action_space, limit)
        self._flatten = _flatten(space) if flat else None
        self._whole = isinstance(env.action_space, Discrete)
        self._masks = masks and self._whole

    def _see(self, seen: Any, info: Any, obs: Array, mask: Array) -> bool:
        found = False
        if self._visible is not None:
            read_mask(seen[MASK], mask[0], f"observation[{MASK!r}]")
            seen, found = self._visible(seen), True
        elif self._masks and MASK in info:
            read_mask(info[MASK], mask[0], f"info[{MASK!r}]")
            found = True
        obs[0] = seen if self._flatten is None else self._flatten(seen)
        return found

    def reset(self, seed: int, obs: Array, mask: Array) -> bool:
        return self._see(*self.env.reset(seed=seed), obs, mask)

    def step(self, action: Array, obs: Array, reward: Array, mask: Array) -> tuple[bool, bool, bool]:
        # `copy`: an environment may keep the array. As int a number passes Discrete's check ten times faster.
        theirs = int(action[0]) if self._whole else action[0].copy()
        seen, reward[0], terminated, truncated, info = self.env.step(theirs)
        masked = self._see(seen, info, obs, mask)
        return bool(terminated), bool(truncated and not terminated), masked


class ZooEnv:
    """A PettingZoo `ParallelEnv`: agents in the order of `possible_agents`, whose spaces must be the same.

    An agent that has left gets reward 0 and sees its last observation (zeros before it first appears), and what it
    does is ignored. The episode is over when nobody is left: truncated where those who were there last were all cut
    by a limit, else terminated. Masks are observation["action_mask"] of a Dict, else infos[agent]["action_mask"]; an agent
    that has left, or whose turn it is not, may have any action.
    """

    def __init__(self, id: str, env: Any, masks: bool = True) -> None:
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
        space, theirs = env.observation_space(names[0]), env.action_space(names[0])
        self._visible: Any
        space, self._visible = split_mask(space, theirs, id) if masks else (space, None)
        box, flat = _observation(space, id)
        self.spaces = ExternalSpaces(len(names), box, _action(theirs, id), theirs, 0)
        self._row = {name: k for k, name in enumerate(names)}
        self._flatten = _flatten(space) if flat else None
        self._masks = masks and isinstance(theirs, Discrete)

    def _see(self, seen: dict[Any, Any], infos: Any, agents: Any, obs: Array, mask: Array) -> bool:
        found = False
        mask[:] = True
        for agent in agents:
            k, info = self._row[agent], infos.get(agent, {})
            if self._masks and self._visible is None and MASK in info:
                read_mask(info[MASK], mask[k], f"infos[{agent!r}][{MASK!r}]")
                found = True
            if agent in seen:
                one = seen[agent]
                if self._visible is not None:
                    read_mask(one[MASK], mask[k], f"observation[{MASK!r}] of {agent}")
                    one, found = self._visible(one), True
                obs[k] = one if self._flatten is None else self._flatten(one)
        return found

    def reset(self, seed: int, obs: Array, mask: Array) -> bool:
        seen, infos = self.env.reset(seed=seed)
        if not self.env.agents:
            raise ValueError("reset() leaves no agents: fill self.agents there")
        obs[:] = 0
        return self._see(seen, infos, self.env.agents, obs, mask)

    def step(self, action: Array, obs: Array, reward: Array, mask: Array) -> tuple[bool, bool, bool]:
        given = {agent: action[self._row[agent]].copy() for agent in self.env.agents}
        seen, gained, ended, cut, infos = self.env.step(given)
        there = self.env.agents
        masked = self._see(seen, infos, {*given, *there}, obs, mask)
        reward[:] = 0
        for agent in given:
            reward[self._row[agent]] = gained.get(agent, 0.0)
        if any(not (ended.get(agent) or cut.get(agent)) for agent in there):
            return False, False, masked
        truncated = any(cut.get(agent) for agent in given) and not any(ended.get(agent) for agent in given)
        return not truncated, truncated, masked


def adapt(id: str, env: Any, masks: bool = True) -> ExternalEnv:
    """`env` as an `ExternalEnv`. Raises ValueError, one line, for spaces that agents cannot have."""
    return GymEnv(id, env, masks) if isinstance(env, gymnasium.Env) else ZooEnv(id, env, masks)
