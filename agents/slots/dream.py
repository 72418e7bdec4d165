"""A world model as an environment: any agent trains in imagination as it does in a world, and then acts in the world itself."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from ...envs.core import Episodes, Scene, Step, Yardstick
from ..core import Agent, Array, Carry, Mode, Rollout, check_arrays, generator_state, set_generator_state

LARGEST = 1e6  # of a feature that is not bounded by itself
TAKEN = ("action", "first", "elapsed", "running_return", "rng")  # names that stand beside the parts of a model's state


class DreamEnv:
    """N dreams in `model`, a `core_ml.world_model.WorldModel`, side by side behind the `BatchEnv` interface; one agent in each.

    Observation: the model's features of its state, float32 (size,). An episode begins in one of `starts`, states by name such
    as `model.posterior` gives, (S, ...) or (B, L, ...); it terminates with the probability that the model says, and is
    truncated after `horizon` steps, 0: never. Reward: what the model expects of a step that terminates an episode, or of one
    that does not. All copies share one random stream: they dream alike in batches of one size only.
    """

    def __init__(
        self, model: Any, action_space: gymnasium.spaces.Discrete, starts: dict[str, Array], num_envs: int = 1, seed: int = 0,
        horizon: int = 15, id: str = "dream",
    ) -> None:  # fmt: skip
        if not isinstance(action_space, gymnasium.spaces.Discrete):
            raise ValueError(f"dream: {action_space} is no Discrete action space")
        first = begun(model, num_envs)
        if starts.keys() != first.keys():
            raise ValueError(f"dream: starts have {sorted(starts)}, states of this model {sorted(first)}")
        self.starts = {name: np.array(starts[name], part.dtype).reshape(-1, *part.shape[1:]) for name, part in first.items()}
        counts = {len(part) for part in self.starts.values()}
        if counts == {0}:
            raise ValueError("dream: no states to start from: give those of real steps")
        if len(counts) > 1:
            raise ValueError(f"dream: starts are {sorted(counts)} states, by different names: give whole states")
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
        """Begin new episodes in all copies; of seeds for each copy all together seed the one random stream."""
        if seed is not None:
            words = [int(x) for x in np.asarray(seed).reshape(-1)]
            self._rng = np.random.Generator(np.random.PCG64(words))
        self._begin(np.ones(self.num_envs, np.bool_))
        return self.obs

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
            copy = int(np.argwhere((action < 0) | (action >= self.action_space.n))[0, 0])
            raise ValueError(f"action {action[copy].tolist()} of copy {copy} is outside {self.action_space}")
        generator = torch.Generator().manual_seed(int(self._rng.integers(2**62)))
        with torch.inference_mode():
            state = {name: torch.from_numpy(part) for name, part in self._state.items()}
            chosen = torch.eye(int(self.action_space.n))[torch.from_numpy(action[:, 0].astype(np.int64))]
            state, outcome = self.model.step(state, chosen, generator)
        for name, part in state.items():
            self._state[name][:] = part.numpy()
        step.terminated[:] = self._rng.random(self.num_envs) >= outcome.going_on.numpy()
        step.reward[:, 0] = np.where(step.terminated, outcome.reward_over.numpy(), outcome.reward_on.numpy())
        self._elapsed += 1
        self._running += step.reward
        step.truncated[:] = ~step.terminated & (self._elapsed >= self.horizon) & (self.horizon > 0)
        self._show(step.final_obs)
        ended = step.terminated | step.truncated
        copies = np.flatnonzero(ended)
        self._ended = Episodes(copies, self._running[copies].copy(), self._elapsed[copies].copy())
        if autoreset and len(copies):
            self._begin(ended)
        else:
            self._show(step.obs)
        return step

    def episodes(self) -> Episodes:
        return self._ended

    def get_state(self) -> dict[str, Array]:
        """The dreams under way, counters and random state; model and starts are whoever made this environment's."""
        dreams = {name: part.copy() for name, part in self._state.items()}
        return dreams | {
            "elapsed": self._elapsed.copy(), "running_return": self._running.copy(), "rng": generator_state(self._rng)
        }  # fmt: skip

    def set_state(self, state: dict[str, Array]) -> None:
        """Put back what `get_state` gave. Raises ValueError where it is of other dreams."""
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


class Awake:
    """An agent that was trained in a `DreamEnv`, acting in the world itself: it sees the model's beliefs of what it observes.

    It is an agent to those who play episodes (`run_episodes`); it does not learn. One agent in each copy. Its carry holds the
    model's state by its names, beside the agent's own.
    """

    name = "awake"
    num_steps = 1

    def __init__(self, model: Any, agent: Agent, actions: int) -> None:
        self.model, self.agent, self.actions, self.config = model, agent, actions, agent.config

    def initial(self, n: int) -> Carry:
        state = asleep(self.model, n)
        theirs = {f"agent/{name}": part for name, part in (self.agent.initial(n) or {}).items()}
        return state | theirs

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        assert carry is not None
        belief, state = believe(self.model, self.actions, obs, carry)
        theirs = {name.removeprefix("agent/"): part for name, part in carry.items() if name.startswith("agent/")}
        action, after, extras = self.agent.act(belief.numpy()[:, None], theirs or None, mode)
        theirs = {f"agent/{name}": part for name, part in (after or {}).items()}
        return action, remembered(state, action[:, 0]) | theirs, extras

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        """Raises ValueError: what happens outside teaches the model; the agent learns in its dreams."""
        raise ValueError("who is awake does not learn: train the agent in a DreamEnv, with collect.practise")

    def state_dict(self) -> dict[str, Array]:
        return self.agent.state_dict()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        self.agent.load_state_dict(state)


def begun(model: Any, n: int) -> dict[str, Array]:
    """The model's state of n rows at the start of an episode, as arrays of their own: whole numbers and flags stay what they
    are. Raises ValueError for names that others have beside a state."""
    state: dict[str, Array] = {name: part.numpy().copy() for name, part in model.initial(n).items()}
    taken = [name for name in state if name in TAKEN or name.startswith("agent/")]
    if taken:
        raise ValueError(f"dream: a part of the model's state is called {taken[0]!r}, which is another thing's name here")
    return state


def asleep(model: Any, n: int) -> dict[str, Array]:
    """What n copies carry that have seen nothing yet: the model's state, the action before and whether an episode begins."""
    return begun(model, n) | {"action": np.zeros(n, np.int64), "first": np.ones(n, np.bool_)}


def believe(model: Any, actions: int, obs: Array, carry: dict[str, Array]) -> tuple[Any, Any]:
    """Features (N, size) and state, tensors, after observations (N, 1, ...), by what is carried."""
    import torch

    dtype: Any = np.float32 if model.observation.kind == "vector" else np.uint8
    with torch.inference_mode():
        state = {name: torch.from_numpy(carry[name]) for name in model.initial(1)}
        before = torch.eye(actions)[torch.from_numpy(carry["action"])]
        seen = torch.from_numpy(obs[:, 0].astype(dtype, copy=False))
        return model.observe(seen, before, torch.from_numpy(carry["first"]), state)  # type: ignore[no-any-return]


def remembered(state: Any, action: Array) -> dict[str, Array]:
    """What to carry after a state and the actions (N,) that were taken there."""
    parts: dict[str, Array] = {name: part.numpy().copy() for name, part in state.items()}
    return parts | {"action": action.astype(np.int64), "first": np.zeros(len(action), np.bool_)}
