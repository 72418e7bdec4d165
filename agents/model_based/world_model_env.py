"""A world model as an environment: any agent trains in imagination as it does in a world, and then acts in the world itself."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from ...envs.batch import Episodes, Step
from ...envs.world import Scene, Yardstick
from ...store.arrays import Array, check_arrays
from ...store.random_state import generator_state, set_generator_state

LARGEST = 1e6  # of a feature that is not bounded by itself
TAKEN = ("action", "first", "elapsed", "running_return", "rng")  # names that stand beside the parts of a model's state


class WorldModelEnv:
    """N environments inside `model`, a `core_ml.models.protocol.WorldModel`, as a `BatchEnv` with one agent in each.

    Observation: the model's features of its state, float32 (size,). An episode begins in one of `starts`, states by name such
    as `model.posterior` gives, (S, ...) or (B, L, ...); it terminates with the probability that the model says, and is
    truncated after `horizon` steps, 0: never. Reward: what the model expects of a step that terminates an episode, or of one
    that does not. All environments share one random stream: results are the same only for the same N.
    """

    def __init__(
        self, model: Any, action_space: gymnasium.spaces.Discrete, starts: dict[str, Array], num_envs: int = 1, seed: int = 0,
        horizon: int = 15, id: str = "world-model",
    ) -> None:  # fmt: skip
        if not isinstance(action_space, gymnasium.spaces.Discrete):
            raise ValueError(f"world model environment: {action_space} is not Discrete: it needs a Discrete action space")
        first = begun(model, num_envs)
        if starts.keys() != first.keys():
            raise ValueError(f"world model environment: starts have {sorted(starts)}, states of this model {sorted(first)}")
        self.starts = {name: np.array(starts[name], part.dtype).reshape(-1, *part.shape[1:]) for name, part in first.items()}
        counts = {len(part) for part in self.starts.values()}
        if counts == {0}:
            raise ValueError("world model environment: no states to start from: give those of real steps")
        if len(counts) > 1:
            raise ValueError(
                f"world model environment: the arrays of starts hold {sorted(counts)} states: they must hold equally many"
            )
        (self._count,) = counts
        self.model, self.id, self.num_envs, self.num_agents, self.horizon = model, id, num_envs, 1, horizon
        size = int(model.size)
        self.observation_space = gymnasium.spaces.Box(-LARGEST, LARGEST, (size,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(int(action_space.n))
        n = num_envs
        self._state = first
        self._step = Step(
            np.zeros((n, 1, size), np.float32), np.zeros((n, 1), np.float32), np.zeros(n, np.bool_), np.zeros(n, np.bool_),
            np.zeros((n, 1, size), np.float32),
        )  # fmt: skip
        self._elapsed, self._running = np.zeros(n, np.int64), np.zeros((n, 1))
        self._ended = Episodes(np.zeros(0, np.int64), np.zeros((0, 1)), np.zeros(0, np.int64))
        self.reset(seed)

    def reset(self, seed: int | Array | None = None) -> Array:
        """Begin new episodes everywhere. An array of seeds, one for each environment, seeds the one random stream as a
        whole."""
        if seed is not None:
            words = [int(x) for x in np.asarray(seed).reshape(-1)]
            self._rng = np.random.Generator(np.random.PCG64(words))
        self._begin(np.ones(self.num_envs, np.bool_))
        return self.obs

    def action_mask(self) -> None:
        """A model does not know which actions are legal: agents that have one are refused where there are masks."""
        return

    @property
    def obs(self) -> Array:
        return self._step.obs

    def _begin(self, which: Array) -> None:
        drawn = self._rng.integers(self._count, size=int(which.sum()))
        for name, part in self._state.items():
            part[which] = self.starts[name][drawn]
        self._elapsed[which], self._running[which] = 0, 0.0
        self._show(self._step.obs)

    def _show(self, out: Array) -> None:
        import torch

        with torch.inference_mode():
            out[:, 0] = self.model.features({name: torch.from_numpy(part) for name, part in self._state.items()}).numpy()

    def step(self, action: Array, *, autoreset: bool = True) -> Step:
        """`action` whole numbers (N, 1). Raises ValueError for one of another shape, or that is none of the space."""
        import torch

        step, action = self._step, np.asarray(action)
        if action.shape != (self.num_envs, 1):
            raise ValueError(f"action has shape {action.shape}: {self.id} wants {(self.num_envs, 1)}")
        if ((action < 0) | (action >= self.action_space.n)).any():
            env = int(np.argwhere((action < 0) | (action >= self.action_space.n))[0, 0])
            raise ValueError(f"action {action[env].tolist()} of environment {env} is outside {self.action_space}")
        generator = torch.Generator().manual_seed(int(self._rng.integers(2**62)))
        with torch.inference_mode():
            state = {name: torch.from_numpy(part) for name, part in self._state.items()}
            chosen = torch.eye(int(self.action_space.n))[torch.from_numpy(action[:, 0].astype(np.int64))]
            state, outcome = self.model.step(state, chosen, generator)
        for name, part in state.items():
            self._state[name][:] = part.numpy()
        step.terminated[:] = self._rng.random(self.num_envs) >= outcome.continue_.numpy()
        step.reward[:, 0] = np.where(step.terminated, outcome.reward_over.numpy(), outcome.reward_on.numpy())
        self._elapsed += 1
        self._running += step.reward
        step.truncated[:] = ~step.terminated & (self._elapsed >= self.horizon) & (self.horizon > 0)
        self._show(step.final_obs)
        ended = step.terminated | step.truncated
        done = np.flatnonzero(ended)
        self._ended = Episodes(done, self._running[done].copy(), self._elapsed[done].copy())
        if autoreset and len(done):
            self._begin(ended)
        else:
            self._show(step.obs)
        return step

    def episodes(self) -> Episodes:
        return self._ended

    def get_state(self) -> dict[str, Array]:
        """The states of the running episodes, counters and random state; not the model and the starts."""
        states = {name: part.copy() for name, part in self._state.items()}
        return states | {
            "elapsed": self._elapsed.copy(), "running_return": self._running.copy(), "rng": generator_state(self._rng)
        }  # fmt: skip

    def set_state(self, state: dict[str, Array]) -> None:
        """Put back what `get_state` gave. Raises ValueError where names, shapes or dtypes differ."""
        check_arrays(state, self.get_state(), f"state of {self.id}")
        mine: dict[str, Array] = {**self._state, "elapsed": self._elapsed, "running_return": self._running}
        for name, part in mine.items():
            part[:] = state[name]
        set_generator_state(self._rng, state["rng"])
        self._show(self._step.obs)

    def scene(self, i: int) -> Scene | None:
        return None

    def rgb(self, i: int) -> Array | None:
        return None

    def yardstick(self) -> Yardstick | None:
        return None

    def close(self) -> None:
        pass


def begun(model: Any, n: int) -> dict[str, Array]:
    """The model's state of n rows at the start of an episode, as arrays of their own: whole numbers and flags stay what they
    are. Raises ValueError for names that others have beside a state."""
    state: dict[str, Array] = {name: part.numpy().copy() for name, part in model.initial(n).items()}
    taken = [name for name in state if name in TAKEN or name.startswith("agent/")]
    if taken:
        raise ValueError(f"world model: a part of its state is called {taken[0]!r}, a name that is reserved: rename it")
    return state
