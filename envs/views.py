"""One engine, other people's interfaces: Gymnasium's Env and VectorEnv, PettingZoo's ParallelEnv and AECEnv.

Views hand out fresh arrays, because users keep what they are given. A copy seeded with s plays the same game
in every view: copy i of ``VectorView.reset(seed=s)`` is ``GymView.reset(seed=s + i)``, as in Gymnasium's own
vector environments.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from pettingzoo import ParallelEnv

from . import register_ids
from .core import Array, World
from .engine import Engine
from .registry import make_world, presets, worlds
from .window import Window, need_pygame

RENDER_MODES = ("ansi", "rgb_array", "human")
OVER = "the episode is over: call reset()"


def register_all() -> None:
    """Register every world and preset known by now with Gymnasium, plugins' and the calling script's included."""
    register_ids([*worlds(), *presets()])


def _engine(
    world: str | World,
    options: dict[str, Any],
    num_envs: int,
    threads: int | None,
    view: str,
    render_mode: str | None,
) -> Engine:
    """The engine behind a view. Raises ValueError where the view cannot show or draw that world."""
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode is {render_mode!r}: {view} knows {', '.join(RENDER_MODES)}")
    if render_mode == "human":
        need_pygame()  # before anything is compiled
    if isinstance(world, World):
        if options:
            raise ValueError(f"options {', '.join(options)} come too late: world {world.name} is made already")
    else:
        world = make_world(world, options)
    if view != "ParallelView" and world.num_agents != 1:
        raise ValueError(f"world {world.name} has {world.num_agents} agents here and {view} shows one: use ParallelView")
    return Engine(world, num_envs=num_envs, threads=threads)


def _frame(engine: Engine, i: int, mode: str | None) -> Any:
    """Copy `i` as text ("ansi") or as uint8 (H, W, 3) ("rgb_array"); for "human" its window is up to date already."""
    from . import render  # drawing needs pillow: only for those who draw

    if mode == "human":
        return None
    if mode is None:
        gymnasium.logger.warn(f"render() without a render_mode: make the view with one of {', '.join(RENDER_MODES)}")
        return None
    return render.text(engine, i) if mode == "ansi" else render.rgb(engine, i)


def _window(engine: Engine, mode: str | None) -> Window | None:
    """The window of a view, for render_mode "human" only; it opens with the first frame."""
    return Window(f"gumdrop {engine.id}", GymView.metadata["render_fps"]) if mode == "human" else None


def _show(window: Window, engine: Engine) -> None:
    """Bring `window` up to date with copy 0."""
    from . import render

    window.show(render.rgb(engine, 0))


def _one_action(action: Any, space: gymnasium.spaces.Space[Any], whole: bool) -> Any:
    """`action` as the engine stores it: an int, or numbers of the space's shape. Raises ValueError."""
    if whole:
        try:
            return operator.index(action)
        except TypeError:
            raise ValueError(f"action {action!r} is not one whole number: {space} wants one") from None
    if np.shape(action) != space.shape:
        raise ValueError(f"action has shape {np.shape(action)}: {space} wants {space.shape}")
    return action


class GymView(gymnasium.Env[Array, Any]):
    """One copy of a single-agent world as a `gymnasium.Env`.

    `world` is a registered name (`options` are its own) or a `World`. Observations follow the world's Box,
    the reward is a float, the flags are bools, info is empty. Raises ValueError for a world of several
    agents, ResetNeeded for a step outside an episode.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 8}

    def __init__(self, world: str | World, render_mode: str | None = None, **options: Any) -> None:
        self.engine = _engine(world, options, 1, 1, "GymView", render_mode)
        self.render_mode = render_mode
        self.observation_space = self.engine.observation_space
        self.action_space = self.engine.action_space
        self._whole = isinstance(self.action_space, gymnasium.spaces.Discrete)
        shape = () if self._whole else self.action_space.shape or ()
        self._action = np.zeros((1, 1, *shape), np.int64 if self._whole else np.float32)
        self._seen = self.engine.obs[0, 0, ...]  # a view of the engine's buffer, which stays where it is
        self._actions = int(self.action_space.n) if isinstance(self.action_space, gymnasium.spaces.Discrete) else 0
        self._seeded = False
        self._over = True
        self._window = _window(self.engine, render_mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_seen": None, "_window": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._seen = self.engine.obs[0, 0, ...]  # of this engine, not of the one that was copied

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode. A seed starts the copy's random stream anew, no seed lets it go on; the first
        reset without a seed draws one from `np_random`. `options` are ignored."""
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**63))
        self.engine.reset(None if seed is None else np.array([seed % 2**64], np.uint64))
        self._seeded, self._over = True, False
        if self._window is not None:
            _show(self._window, self.engine)
        return self.engine.obs[0, 0, ...].copy(), {}

    def step(self, action: Any) -> tuple[Array, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step; ValueError for an action outside the space."""
        if self._over:
            raise ResetNeeded(OVER)
        if self._whole:
            whole = _one_action(action, self.action_space, True)
            self._action[0, 0] = whole
            if 0 <= whole < self._actions:  # checked here: the engine's own check looks at arrays, at many times the cost
                step = self.engine.step_legal(self._action, False)
            else:
                step = self.engine.step(self._action, None, False)  # raises
        else:
            self._action[0, 0] = _one_action(action, self.action_space, False)
            step = self.engine.step_legal(self._action, False)
        ended, cut = step.terminated.item(), step.truncated.item()
        self._over = ended or cut
        if self._window is not None:
            _show(self._window, self.engine)
        return self._seen.copy(), step.reward.item(), ended, cut, {}

    def render(self) -> Any:
        """The copy as text or picture, by `render_mode`; None for "human", whose window is up to date by itself."""
        return _frame(self.engine, 0, self.render_mode)

    def close(self) -> None:
        if self._window is not None:
            self._window.close()
        self.engine.close()


class VectorView(VectorEnv[Array, Any, Array]):
    """N copies of a single-agent world as a `gymnasium.vector.VectorEnv`.

    obs (N, ...) of the world's dtype, reward float32 (N,), flags bool (N,). `autoreset_mode` is one of
    Gymnasium's three, stated in ``metadata["autoreset_mode"]``:

    - NEXT_STEP (default): the step after an episode's last ignores the action, resets the copy and pays 0.
    - SAME_STEP: obs is the new episode's first; the old one's last is in infos["final_obs"][i].
    - DISABLED: call ``reset(options={"reset_mask": ended})``; stepping an ended copy raises ResetNeeded.

    Where an episode has ended, infos["episode"] holds its return "r" (float64 (N,)) and length "l" (int64
    (N,)), and infos["_episode"] says where. Gymnasium's RecordEpisodeStatistics wants to write that key
    itself: pass statistics=False. `threads`: None for as many as the machine has; results do not depend on
    it.
    """

    def __init__(
        self,
        world: str | World,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        statistics: bool = True,
        threads: int | None = None,
        **options: Any,
    ) -> None:
        self.engine = _engine(world, options, num_envs, threads, "VectorView", render_mode)
        self._mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**GymView.metadata, "autoreset_mode": self._mode}
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.single_observation_space = self.engine.observation_space
        self.single_action_space = self.engine.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._whole = isinstance(self.single_action_space, gymnasium.spaces.Discrete)
        self._statistics = statistics
        self._seeded = False
        self._over = np.ones(num_envs, np.bool_)
        self._window = _window(self.engine, render_mode)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin episodes: in all copies, or where ``options["reset_mask"]``, bool (N,), is true.

        Whole number s: copy i gets seed s + i. A list gives each copy its seed, None lets its stream go on.
        """
        n = self.num_envs
        mask = (options or {}).get("reset_mask")
        if mask is None:
            mask = np.ones(n, np.bool_)
        elif not (isinstance(mask, np.ndarray) and mask.shape == (n,) and mask.dtype == np.bool_ and mask.any()):
            raise ValueError(f"options['reset_mask'] is {mask!r:.80}: give a bool array of shape ({n},), not all false")
        if seed is None or isinstance(seed, (int, np.integer)):
            super().reset(seed=None if seed is None else int(seed))
        if seed is not None or not self._seeded:
            self._seed_copies(seed, mask)
        self._over = self._over & ~mask
        obs = self.engine.reset_copies(mask)[:, 0].copy()
        if self._window is not None:
            _show(self._window, self.engine)
        return obs, {}

    def _seed_copies(self, seed: int | Sequence[int | None] | None, mask: Array) -> None:
        """New random streams for the copies at `mask` that get a seed; the first time, for all copies."""
        n = self.num_envs
        seeds: list[int | None]
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds = [None if seed is None else int(seed) + i for i in range(n)]
        else:
            seeds = list(seed)
            if len(seeds) != n:
                raise ValueError(f"{len(seeds)} seeds for {n} copies: give one for each")
        which = np.array([s is not None for s in seeds]) & mask
        if not self._seeded:
            fresh: list[int] = self.np_random.integers(2**63, size=n).tolist()
            seeds = [new if s is None else s for s, new in zip(seeds, fresh, strict=True)]
            which[:] = True
        chosen = [s % 2**64 for s, w in zip(seeds, which, strict=True) if w and s is not None]
        self.engine.reseed_copies(which, np.array(chosen, np.uint64))
        self._seeded = True

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all copies. Raises ValueError for an action outside the space."""
        action = np.asarray(actions)
        if self._whole and action.dtype.kind not in "iu":
            raise ValueError(f"actions are {action.dtype}: {self.single_action_space} wants whole numbers")
        if action.shape != self.action_space.shape:
            raise ValueError(f"actions have shape {action.shape}: {self.num_envs} copies want {self.action_space.shape}")
        action = action[:, None]
        waiting = self._over
        if not waiting.any():
            out = self.engine.step(action, None, self._mode is AutoresetMode.SAME_STEP)
        elif self._mode is AutoresetMode.NEXT_STEP and self._seeded:
            out = self.engine.step(action, ~waiting, False)
        else:
            raise ResetNeeded(f"copy {int(waiting.argmax())}: {OVER}")
        over = out.terminated | out.truncated
        infos = self._infos(over, out.final_obs) if over.any() else {}
        if waiting.any():
            self.engine.reset_copies(waiting)
        self._over = over if self._mode is not AutoresetMode.SAME_STEP else waiting
        if self._window is not None:
            _show(self._window, self.engine)
        return (
            out.obs[:, 0].copy(),
            out.reward[:, 0].copy(),
            out.terminated.copy(),
            out.truncated.copy(),
            infos,
        )

    def _infos(self, over: Array, final_obs: Array) -> dict[str, Any]:
        """What Gymnasium puts into `infos` when the episodes at `over`, bool (N,), have ended."""
        infos = self._episode(over) if self._statistics else {}
        if self._mode is AutoresetMode.SAME_STEP:
            rows = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(over):
                rows[i] = final_obs[i, 0, ...].copy()
            infos |= {"final_obs": rows, "_final_obs": over.copy()}
            infos |= {
                "final_info": self._episode(over) if self._statistics else {},
                "_final_info": over.copy(),
            }
        return infos

    def _episode(self, over: Array) -> dict[str, Any]:
        """The engine's statistics of the episodes that have just ended, in Gymnasium's form."""
        copies, returns, lengths = self.engine.episodes()
        r, length = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        r[copies], length[copies] = returns[:, 0], lengths
        return {
            "episode": {"r": r, "_r": over.copy(), "l": length, "_l": over.copy()},
            "_episode": over.copy(),
        }

    def render(self) -> tuple[Any, ...] | None:
        """A frame of each copy, by `render_mode`; None for "human", whose window shows copy 0 by itself."""
        if self._window is not None:
            return None
        return tuple(_frame(self.engine, i, self.render_mode) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        if self._window is not None:
            self._window.close()
        self.engine.close()


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """A mode by Gymnasium's value (NextStep) or by its name (next_step)."""
    for known in AutoresetMode:
        if mode == known or str(mode).lower() in (known.value.lower(), known.name.lower()):
            return known
    raise ValueError(f"autoreset_mode is {mode!r}: known are {', '.join(m.name for m in AutoresetMode)}")


class ParallelView(ParallelEnv[str, Array, Any]):  # type: ignore[misc]  # PettingZoo has no types
    """One copy of a world with all its agents as a PettingZoo `ParallelEnv`; agents are agent_0, agent_1, ...

    All agents' episodes end together. Rewards are floats, flags bools, infos empty.
    """

    def __init__(self, world: str | World, render_mode: str | None = None, **options: Any) -> None:
        self.engine = _engine(world, options, 1, 1, "ParallelView", render_mode)
        self.metadata = {**GymView.metadata, "name": f"{self.engine.id}_v0", "is_parallelizable": True}
        self.render_mode = render_mode
        self.possible_agents = [f"agent_{k}" for k in range(self.engine.num_agents)]
        self.agents: list[str] = []
        # each agent has spaces of its own, so that seeding one agent's sampling leaves the others' alone
        self._observation_spaces = {agent: deepcopy(self.engine.observation_space) for agent in self.possible_agents}
        self._action_spaces = {agent: deepcopy(self.engine.action_space) for agent in self.possible_agents}
        self._whole = isinstance(self.engine.action_space, gymnasium.spaces.Discrete)
        shape = () if self._whole else self.engine.action_space.shape or ()
        self._action = np.zeros((1, len(self.possible_agents), *shape), np.int64 if self._whole else np.float32)
        self._seeded = False
        self._window = _window(self.engine, render_mode)

    def observation_space(self, agent: str) -> gymnasium.spaces.Space[Any]:
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.spaces.Space[Any]:
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
        """Begin an episode; seeding as in `GymView`. `options` are ignored."""
        if seed is None and not self._seeded:
            seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
        self.engine.reset(None if seed is None else np.array([int(seed) % 2**64], np.uint64))
        self._seeded = True
        self.agents = list(self.possible_agents)
        if self._window is not None:
            _show(self._window, self.engine)
        return self._observations(), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """One step of all agents. Raises ValueError if an agent's action is missing or outside its space."""
        if not self.agents:
            raise ResetNeeded(OVER)
        for k, agent in enumerate(self.possible_agents):
            if agent not in actions:
                raise ValueError(f"no action for {agent}: all of {', '.join(self.agents)} act in every step")
            self._action[0, k] = _one_action(actions[agent], self._action_spaces[agent], self._whole)
        _, reward, terminated, truncated, _ = self.engine.step(self._action, None, False)
        ended, cut, agents = terminated.item(), truncated.item(), self.agents
        if self._window is not None:
            _show(self._window, self.engine)
        if ended or cut:
            self.agents = []
        return (
            self._observations(),
            dict(zip(agents, reward[0].tolist(), strict=True)),
            dict.fromkeys(agents, ended),
            dict.fromkeys(agents, cut),
            {agent: {} for agent in agents},
        )

    def _observations(self) -> dict[str, Array]:
        return {agent: self.engine.obs[0, k, ...].copy() for k, agent in enumerate(self.possible_agents)}

    def render(self) -> Any:
        """The copy as text or picture, by `render_mode`; None for "human", whose window is up to date by itself."""
        return _frame(self.engine, 0, self.render_mode)

    def close(self) -> None:
        if self._window is not None:
            self._window.close()
        self.engine.close()


def aec(world: str | World, render_mode: str | None = None, **options: Any) -> Any:
    """A world as a PettingZoo `AECEnv`, by PettingZoo's converter: the world moves after the last agent."""
    from pettingzoo.utils.conversions import parallel_to_aec

    return parallel_to_aec(ParallelView(world, render_mode, **options))
