"""A trained policy as a function of observations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...agents.protocol import Agent, Carry, Mode, Spaces
from ...agents.saved import load_run
from ...envs.make import make
from ...store.arrays import Array
from ...store.run_folder import RunFolder


class Policy:
    """`action, state = policy(obs, state)` for one observation, or for a batch of them.

    `obs` has the shape of the environment's observations, or (B, *that) for B environments; where A agents share an
    environment, (A, *that) or (B, A, *that). Actions are int64 for Discrete spaces, float32 (..., D) for Box; of one
    observation of one agent a whole number. `state` is what the policy remembers of the running episodes: None where they
    begin, later what the last call returned; None for policies without memory.

    Raises ValueError for observations of another shape and for a `state` of another batch.

    >>> policy = gd.load("lake").policy
    >>> obs = gd.make("frozenlake").reset(seed=0)[0, 0]  # of one environment, of its only agent
    >>> action, state = policy(obs)
    >>> isinstance(action, int), state is None
    (True, True)
    >>> policy(np.zeros(3))
    Traceback (most recent call last):
    ValueError: observation has shape (3,): it should be (7, 7), or a batch of those
    """

    def __init__(self, agent: Agent, spaces: Spaces) -> None:
        self.agent, self.spaces = agent, spaces

    @classmethod
    def of_run(cls, folder: Path) -> Policy:
        """That of the checkpoint that `deploy` means. Raises ValueError."""
        agent, config, _ = load_run(RunFolder(folder), "deploy")
        env = make(config.env_id, config.env_options, num_envs=1)
        spaces = Spaces.of(env)
        env.close()
        return cls(agent, spaces)

    def __call__(self, obs: Any, state: Carry = None, *, mask: Any = None, mode: Mode = "greedy") -> tuple[Any, Carry]:
        """Actions for `obs`, and the next state.

        `mode`: "greedy", the likeliest actions, or "sample", as in training. `mask`: bool, like the actions with one entry for
        each possible action behind; False: not allowed.
        """
        shape, agents = self.spaces.observation.shape or (), self.spaces.num_agents
        one = shape if agents == 1 else (agents, *shape)
        given = np.asarray(obs)
        single = given.shape == one
        if not single and given.shape[1:] != one:
            raise ValueError(f"observation has shape {given.shape}: it should be {one}, or a batch of those")
        n = 1 if single else len(given)
        rows = np.ascontiguousarray(given.reshape(n, agents, *shape), self.spaces.observation.dtype)
        carry = self.agent.initial(n) if state is None else state
        if carry is not None and any(len(part) != n for part in carry.values()):
            raise ValueError(f"state is that of {len(next(iter(carry.values())))} environments, observations are of {n}")
        if self.spaces.masked and mask is None:
            raise ValueError("the environment has action masks: give mask=env.action_mask(), for the same observations")
        extra = {} if mask is None else {"mask": np.asarray(mask, np.bool_).reshape(n, agents, -1)}
        action, carry, _ = self.agent.act(rows, carry, mode, **extra)
        found = np.array(action)  # (N, A) or (N, A, D)
        found = found[:, 0] if agents == 1 else found
        if not single:
            return found, carry
        return (int(found[0]) if found.ndim == 1 else found[0]), carry

    def restart(self, state: Carry, ended: Any) -> Carry:
        """`state` with fresh rows where `ended`, bool (B,), says that an episode has ended. Changes no argument."""
        if state is None:
            return None
        rows = np.asarray(ended, np.bool_)
        fresh = self.agent.initial(1) or {}
        return {name: _with(part, rows, fresh[name]) for name, part in state.items()}

    def __repr__(self) -> str:
        obs, action = self.spaces.observation, self.spaces.action
        return f"Policy({self.agent.name}: {obs.dtype} {obs.shape} -> {action})"


def _with(part: Array, rows: Array, fresh: Array) -> Array:
    part = part.copy()
    part[rows] = fresh
    return part
