"""Gymnasium and PettingZoo environments behind the same batched interface as our own worlds.

Neither library can save an environment. What makes a killed run resume exactly all the same is seed and replay:
every episode begins with a seed that follows from the copy's seed and the episode's number, the running episode's
actions are kept, and `set_state` plays them again. That is exact where the environment is deterministic, which the
replayed observation and return prove or disprove.

The loop over copies runs here (`Loop`), or in worker processes (`workers.py`), with the same bits.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import math
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.spaces.utils import flatten, flatten_space
from pettingzoo import AECEnv, ParallelEnv

from .core import Array, Episodes, Scene, Step, Yardstick
from .registry import UnknownName
from .rng import GOLDEN, copy_seeds, mix

FIRST_CAPACITY = 64  # actions that the log holds before it grows
TIMEOUT = 60.0  # seconds that a worker process may spend in one call of an environment, unless told
DOING = (  # what `Buffers.mark` says that a copy is doing
    "between two calls",
    "while it was made",
    "in reset() of episode {episode}",
    "in step {elapsed} of episode {episode}",
    "replaying step {elapsed} of episode {episode}",
    "while it was drawn",
)
IDLE, MAKE, RESET, STEP, REPLAY, DRAW = range(len(DOING))


class ReplayMismatch(UserWarning):
    """A replayed episode led elsewhere: the environment is not deterministic, this is another run."""


class CopyFailed(ValueError):
    """One copy of a foreign environment raised, died or hung: a line that names it, then the traceback if there is one."""

    def __init__(self, line: str, copy: int, trace: str = "") -> None:
        super().__init__(line, copy, trace)
        self.line, self.copy, self.trace = line, copy, trace

    def __str__(self) -> str:
        return f"{self.line}\n{self.trace}".rstrip()


def own_options(id: str, options: dict[str, Any]) -> tuple[dict[str, Any], int, float]:
    """What the constructor gets of `options`, and what is ours: `workers` (0: none) and `timeout` in seconds (0: never).

    Raises ValueError, one line, for values that these two cannot have.
    """
    theirs = {key: value for key, value in options.items() if key not in ("workers", "timeout")}
    workers, timeout = options.get("workers", 0), options.get("timeout")
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 0:
        raise ValueError(f"environment {id}: workers is {workers!r:.40}: give a whole number, 0 for none")
    if timeout is None:
        return theirs, workers, TIMEOUT
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout < math.inf:
        raise ValueError(f"environment {id}: timeout is {timeout!r:.40}: give seconds, 0 to wait for ever")
    if not workers:
        raise ValueError(f"environment {id}: timeout needs worker processes: give workers=1 or more too")
    return theirs, workers, float(timeout)


def _factory(id: str) -> Callable[..., Any]:
    """What makes `id`: `gymnasium.make` for a name that Gymnasium knows, else what the module has under that name."""
    module, _, name = id.rpartition(":")
    there: Any = None
    try:
        if module:
            there = importlib.import_module(module)
    except Exception as error:  # a stranger's code: whatever it raises is its reason
        raise ValueError(f"environment {id}: cannot import {module}: {_one_line(error)}"[:300]) from None
    try:
        gymnasium.spec(name)
        return functools.partial(gymnasium.make, name, disable_env_checker=True)
    except gymnasium.error.Error:
        made: Any = getattr(there, name, None)
    if callable(made):
        return made  # type: ignore[no-any-return]
    known = {key.lower(): key for key in gymnasium.registry}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    if near:
        way_out = f"did you mean {known[near[0]]}?"
    elif callable(getattr(there, "parallel_env", None)):
        way_out = f"did you mean {module}:parallel_env?"
    else:
        way_out = "module:Id imports its package first, module:function calls a function of it"
    raise UnknownName(f"Gymnasium knows no environment {name!r}: {way_out}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def make_foreign(id: str, options: dict[str, Any]) -> Any:
    """One environment, a `gymnasium.Env` without the passive checker or a PettingZoo `ParallelEnv`.

    `workers` and `timeout` in `options` are not its constructor's. Raises UnknownName or ValueError, one line each.
    """
    options, _, _ = own_options(id, options)
    make = _factory(id)
    if "render_mode" in options:
        raise ValueError(f"environment {id}: leave render_mode out, pictures are drawn by a copy of their own")
    try:
        env = make(**options)
    except Exception as error:  # a stranger's constructor: whatever it raises is its reason
        reason = _one_line(error).partition(" was raised from the environment creator")[0]
        raise ValueError(f"environment {id} cannot be made: {type(error).__name__}: {reason}"[:300]) from error
    if isinstance(env, AECEnv):
        way_out = "name its parallel_env, or wrap it with pettingzoo.utils.conversions.turn_based_aec_to_parallel"
        raise ValueError(f"environment {id} takes turns (AEC): {way_out}")
    if not isinstance(env, (gymnasium.Env, ParallelEnv)):
        raise ValueError(f"environment {id} gives a {type(env).__name__}: a gymnasium.Env or a ParallelEnv is wanted")
    return env


def _fixed(space: gymnasium.spaces.Space[Any]) -> bool:
    """Whether every element of `space` flattens to equally many numbers."""
    try:
        return isinstance(flatten_space(space), Box)
    except NotImplementedError:
        return False


def _sized(space: gymnasium.spaces.Space[Any]) -> gymnasium.spaces.Space[Any]:
    """`space`; of a Dict that as a whole has no fixed size, those entries that have one (not MiniGrid's mission)."""
    if isinstance(space, Dict) and not _fixed(space):
        return Dict({key: part for key, part in space.items() if _fixed(part)})
    return space


def _flatten(space: gymnasium.spaces.Space[Any]) -> Callable[[Any], Any]:
    """What flattens elements of a space, of which only what is `_sized` remains."""
    sized = _sized(space)
    if sized is space:
        return functools.partial(flatten, space)
    keys = list(sized.keys())  # type: ignore[attr-defined]
    return lambda obs: flatten(sized, {key: obs[key] for key in keys})


def _observation(space: gymnasium.spaces.Space[Any], id: str) -> tuple[Box, bool]:
    """The Box that agents see, and whether observations must be flattened to lie in it."""
    if isinstance(space, Box):
        if space.dtype != np.float64:
            return space, False
        with np.errstate(over="ignore"):  # bounds beyond float32 become infinite
            return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32), False
    space = _sized(space)
    flat: Any = flatten_space(space) if _fixed(space) else None
    if not isinstance(flat, Box):
        raise ValueError(f"environment {id}: observation space {space} has no fixed size: wrap it into a Box")
    with np.errstate(over="ignore"):
        return Box(flat.low.astype(np.float32), flat.high.astype(np.float32), dtype=np.float32), True


def _action(space: gymnasium.spaces.Space[Any], id: str) -> Discrete | Box:
    """The action space that agents see: Discrete from 0, or a float32 Box."""
    if isinstance(space, Discrete):
        return Discrete(int(space.n))
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    raise ValueError(f"environment {id}: action space {space} is not supported: wrap it into a Discrete or a float Box")


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


def probe(id: str, options: dict[str, Any]) -> str:
    """Make `id` once and close it: "gymnasium" or "pettingzoo". With workers wanted, in a process of its own.

    Raises UnknownName or ValueError, one line, where it cannot be made or agents cannot have its spaces.
    """
    theirs, workers, timeout = own_options(id, options)
    if workers:
        from .workers import call_apart

        return call_apart(probe, id, theirs, timeout)
    env = make_foreign(id, options)
    try:
        adapt(id, env)
    except ValueError:
        raise
    except Exception as error:  # a stranger's class: whatever it raises is its reason
        raise ValueError(f"environment {id} cannot be used: {type(error).__name__}: {error}") from error
    library = "gymnasium" if isinstance(env, gymnasium.Env) else "pettingzoo"
    with contextlib.suppress(Exception):  # the checks will say so
        env.close()
    return library


def adapt(id: str, env: Any) -> Copy:
    """`env` as a `Copy`. Raises ValueError, one line, for spaces that agents cannot have."""
    return GymCopy(id, env) if isinstance(env, gymnasium.Env) else ParallelCopy(id, env)


class Buffers(NamedTuple):
    """Arrays that a batch and its loops share, first axis the copy (N) and the second the agent (A)."""

    obs: Array  # (N, A, ...)
    reward: Array  # float32 (N, A)
    terminated: Array  # bool (N,)
    truncated: Array  # bool (N,)
    final_obs: Array  # (N, A, ...)
    action: Array  # (N, A, ...) as the environments want them
    elapsed: Array  # int64 (N,): steps of the running episodes, the one being taken included
    running: Array  # float64 (N, A): their returns so far
    ended_return: Array  # float64 (N, A): of the episodes that ended last
    ended_length: Array  # int64 (N,)
    copy_seed: Array  # uint64 (N,)
    episode: Array  # int64 (N,): number of the running episode since the copy was seeded
    mark: Array  # int64 (loops, 3): copy within its loop, place in DOING, and a number that grows while it draws


def layout(facts: Facts, n: int, loops: int) -> list[tuple[tuple[int, ...], Any]]:
    """Shapes and dtypes of `Buffers`."""
    a, box, theirs = facts.agents, facts.observation, facts.theirs
    shape = () if isinstance(theirs, Discrete) else theirs.shape
    seen, f32, f64, i64 = ((n, a, *(box.shape or ())), box.dtype), np.float32, np.float64, np.int64
    return [
        seen, ((n, a), f32), ((n,), np.bool_), ((n,), np.bool_), seen, ((n, a, *shape), theirs.dtype), ((n,), i64),
        ((n, a), f64), ((n, a), f64), ((n,), i64), ((n,), np.uint64), ((n,), i64), ((loops, 3), i64),
    ]  # fmt: skip


def episode_seed(copy_seed: Any, episode: Any) -> int:
    """Seed of an episode: 31 bits, which is what every environment's generator takes."""
    with np.errstate(over="ignore"):
        return int(mix(copy_seed + np.uint64(episode + 1) * GOLDEN) >> np.uint64(33))


def where_failed(error: BaseException) -> tuple[str, str]:
    """('KeyError: 3 (maze.py:12 in step)', the traceback from the first frame that is not this package's)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    frames = traceback.extract_tb(trace)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    text = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    return f"{type(error).__name__}: {_one_line(error)}"[:300] + place, text


class Loop:
    """A plain loop over copies that live in this process; `b` holds the rows of these copies.

    `first` is the first copy's number in the whole batch: errors name copies by it.
    """

    def __init__(self, id: str, options: dict[str, Any], copies: list[Copy], b: Buffers, first: int = 0) -> None:
        self._id, self._options, self._copies, self._b, self._first = id, options, copies, b, first
        self._mark = b.mark[0]
        self._rows = [(copy.step, b.action[i], b.obs[i], b.reward[i]) for i, copy in enumerate(copies)]
        self._viewer: _Viewer | None = None

    def _failed(self, error: BaseException) -> CopyFailed:
        i, doing = int(self._mark[0]), DOING[int(self._mark[1])]
        doing = doing.format(elapsed=self._b.elapsed[i], episode=self._b.episode[i])
        what, trace = where_failed(error)
        return CopyFailed(f"environment {self._id}: copy {self._first + i} failed {doing}: {what}", self._first + i, trace)

    def reset(self) -> None:
        """Begin the episodes that `episode` counts, in all copies."""
        try:
            for i in range(len(self._copies)):
                self._begin(i)
        except (Exception, SystemExit) as error:  # a stranger's code: whatever it raises is its copy's failure
            raise self._failed(error) from error
        self._mark[1] = IDLE

    def _begin(self, i: int) -> None:
        b = self._b
        self._mark[0], self._mark[1] = i, RESET
        b.elapsed[i] = 0
        b.running[i] = 0.0
        self._copies[i].reset(episode_seed(b.copy_seed[i], b.episode[i]), b.obs[i])

    def step(self, autoreset: bool) -> None:
        """One step of all copies with the actions in `action`; `elapsed` counts it already."""
        b, mark = self._b, self._mark
        try:
            mark[1] = STEP
            for i, (step, action, obs, reward) in enumerate(self._rows):
                mark[0] = i
                terminated, truncated = step(action, obs, reward)
                b.terminated[i] = terminated
                b.truncated[i] = truncated
                if terminated or truncated:
                    self._end(i, autoreset)
                    mark[1] = STEP
        except (Exception, SystemExit) as error:
            raise self._failed(error) from error
        mark[1] = IDLE
        np.add(b.running, b.reward, out=b.running, where=~(b.terminated | b.truncated)[:, None])

    def _end(self, i: int, autoreset: bool) -> None:
        """Close the books of copy `i`, and begin its next episode if asked to."""
        b = self._b
        b.final_obs[i] = b.obs[i]
        b.ended_return[i] = b.running[i] + b.reward[i]
        b.ended_length[i] = b.elapsed[i]
        if autoreset:
            b.episode[i] += 1
            self._begin(i)
        else:
            b.running[i] = b.ended_return[i]

    def replay(self, actions: Array, elapsed: Array, over: Array) -> Array:
        """Play the episodes again: `actions` (N, T, A, ...), of which `elapsed` (N,) count. True where they are as they were.

        `over` (N,): the last action ended the episode, and the copy has not begun another. Where a replay ends when it
        should not have, the copy begins its next episode.
        """
        whole = np.ones(len(self._copies), np.bool_)
        try:
            for i in range(len(self._copies)):
                whole[i] = self._replay(i, actions[i, : elapsed[i]], bool(over[i]))
        except (Exception, SystemExit) as error:
            raise self._failed(error) from error
        self._mark[1] = IDLE
        return whole

    def _replay(self, i: int, actions: Array, over: bool) -> bool:
        b = self._b
        self._begin(i)
        self._mark[1] = REPLAY
        ended = False
        for action in actions:
            b.elapsed[i] += 1
            ended = any(self._copies[i].step(action, b.obs[i], b.reward[i]))
            if ended and not (over and b.elapsed[i] == len(actions)):  # it did not when it was recorded
                b.episode[i] += 1
                self._begin(i)
                return False
            b.running[i] += b.reward[i]
        return ended == over

    def draw(self, i: int, actions: Array) -> Array | None:
        """A picture of copy `i` (of this loop), whose running episode's actions are `actions` (T, A, ...)."""
        b, mark = self._b, self._mark
        mark[0], mark[1] = i, DRAW
        try:
            if self._viewer is None:
                self._viewer = _Viewer(self._id, self._options, self._copies[0])
            which = (i, int(b.copy_seed[i]), int(b.episode[i]))
            picture = self._viewer.show(which, episode_seed(b.copy_seed[i], b.episode[i]), actions, mark)
        except (Exception, SystemExit) as error:
            raise self._failed(error) from error
        mark[1] = IDLE
        return picture

    def close(self) -> None:
        for closing in (*(copy.env for copy in self._copies), *([self._viewer] if self._viewer else [])):
            try:
                closing.close()
            except Exception as error:  # a stranger's: the others are closed all the same, and no run fails at its end
                warnings.warn(f"environment {self._id} could not be closed: {type(error).__name__}: {error}", stacklevel=2)


class ForeignBatch:
    """N copies of a Gymnasium or a PettingZoo parallel environment behind `BatchEnv`; a `Step` holds its buffers.

    `id` is what `gymnasium.make` takes (`CartPole-v1`, `module:Id`), or `module:function` where the function returns a
    ParallelEnv or a gymnasium.Env; `options` are its keyword arguments. Discrete observations become one-hot float32,
    Dict and Tuple are flattened (entries of a Dict that have no fixed size, such as MiniGrid's mission, are left out),
    float64 is cast to float32. Box actions are clipped into their bounds. `ParallelCopy`
    says what becomes of agents that leave.

    `workers` > 0 runs the copies in so many processes, each with a share of them, and `timeout` seconds are what one
    call of an environment may take there (0: for ever); both may stand in `options` instead. Results do not depend
    on them. A copy that raises, dies or hangs raises CopyFailed; with workers all of them are ended then.

    Raises UnknownName or ValueError in one line each where the environment cannot be made.
    """

    def __init__(
        self,
        id: str,
        options: dict[str, Any] | None = None,
        num_envs: int = 1,
        seed: int = 0,
        workers: int | None = None,
        timeout: float | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: at least 1 copy is needed")
        ours = {key: value for key, value in (("workers", workers), ("timeout", timeout)) if value is not None}
        self.id, self.num_envs = id, num_envs
        self.options, workers, timeout = own_options(id, {**(options or {}), **ours})
        self.workers = min(workers, num_envs)  # processes; 0: the copies are in this one
        self._loop: Any  # Loop or Workers: reset, step, replay, draw, close
        self._b: Buffers
        if self.workers:
            from .workers import Workers

            self._loop = Workers(id, self.options, num_envs, self.workers, timeout)
            facts, self._b = self._loop.facts, self._loop.buffers
        else:
            copies = [adapt(id, make_foreign(id, self.options)) for _ in range(num_envs)]
            facts = copies[0].facts
            self._b = Buffers(*(np.zeros(shape, dtype) for shape, dtype in layout(facts, num_envs, 1)))
            self._loop = Loop(id, self.options, copies, self._b)
        self.num_agents, self.time_limit = facts.agents, facts.time_limit
        self.observation_space: gymnasium.spaces.Space[Any] = facts.observation
        self.action_space: gymnasium.spaces.Space[Any] = facts.action
        self._theirs = facts.theirs
        self._whole = isinstance(facts.action, Discrete)
        b = self._b
        self._out = Step(b.obs, b.reward, b.terminated, b.truncated, b.final_obs)
        self.elapsed = b.elapsed  # steps of the running episodes
        shape = b.action.shape[1:]
        self._log = np.zeros((num_envs, FIRST_CAPACITY, *shape), np.int64 if self._whole else np.float32)
        self._rows = np.arange(num_envs)
        self._over = np.zeros(num_envs, np.bool_)  # ended and, without autoreset, left as they are
        self.reset(seed)

    @property
    def obs(self) -> Array:
        return self._out.obs

    def reset(self, seed: int | Array | None = None) -> Array:
        """Begin new episodes in all copies; a seed (a whole number, or one for each copy) begins at episode 0."""
        b = self._b
        if seed is None:
            b.episode[:] += 1
        else:
            seeds = copy_seeds(int(seed), self.num_envs) if np.ndim(seed) == 0 else np.asarray(seed, np.uint64)
            if seeds.shape != (self.num_envs,):
                raise ValueError(f"seed has shape {seeds.shape}: give one whole number or {self.num_envs}")
            b.copy_seed[:] = seeds
            b.episode[:] = 0
        b.terminated[:] = False
        b.truncated[:] = False
        self._over[:] = False
        self._loop.reset()
        return b.obs

    def _their_actions(self, action: Array) -> Array:
        """Actions as the environments want them: shifted by Discrete's start, or clipped into the Box and cast."""
        moved: Array = action + self._theirs.start if self._whole else np.clip(action, self._theirs.low, self._theirs.high)
        return np.asarray(moved, self._theirs.dtype)

    def step(self, action: Array, *, autoreset: bool = True) -> Step:
        """One step of all copies; with `autoreset` a finished copy begins its next episode.

        Raises ValueError for an illegal action, CopyFailed where an environment fails.
        """
        b, action = self._b, np.asarray(action, self._log.dtype)
        if action.shape != b.action.shape:
            raise ValueError(f"action has shape {action.shape}: environment {self.id} wants {b.action.shape}")
        if self._whole:
            bad = (action < 0) | (action >= self.action_space.n)  # type: ignore[attr-defined]
            if bad.any():
                copy = int(np.argwhere(bad)[0, 0])
                raise ValueError(f"action {action[copy].tolist()} of copy {copy} is outside {self.action_space}")
        if b.elapsed.max() >= self._log.shape[1]:
            self._log = np.concatenate([self._log, np.zeros_like(self._log)], axis=1)
        self._log[self._rows, b.elapsed] = action
        b.elapsed[:] += 1
        b.action[:] = self._their_actions(action)
        self._loop.step(autoreset)
        self._over[:] = False if autoreset else b.terminated | b.truncated
        return self._out

    def episodes(self) -> Episodes:
        """Episodes that ended in the last step."""
        copies = np.flatnonzero(self._b.terminated | self._b.truncated)
        return Episodes(copies, self._b.ended_return[copies], self._b.ended_length[copies])

    def get_state(self) -> dict[str, Array]:
        """Seeds, counters, and the running episodes' actions, (N, longest, A, ...); the rest follows from them.

        The actions of a single agent are (N, longest, ...).
        """
        b = self._b
        return {
            "copy_seed": b.copy_seed.copy(),
            "episode": b.episode.copy(),
            "elapsed": b.elapsed.copy(),
            "running_return": b.running.copy(),
            "actions": self._actions_so_far(),
            "obs": b.obs.copy(),
            "over": self._over.copy(),
        }

    def _actions_so_far(self) -> Array:
        """The running episodes' actions; zeros behind each one's end, so that equal states are equal bytes."""
        log = self._log[:, : int(self._b.elapsed.max())].copy()
        log[np.arange(log.shape[1]) >= self._b.elapsed[:, None]] = 0
        return log[:, :, 0] if self.num_agents == 1 else log

    def set_state(self, state: dict[str, Array]) -> None:
        """Put back what `get_state` gave, by replaying the running episodes. Raises ValueError where arrays do not fit.

        Warns with ReplayMismatch, once, if a replay ends elsewhere; that copy goes on from where its replay led.
        """
        b, here = self._b, self.get_state()
        if here.keys() != state.keys():
            raise ValueError(f"state of {self.id} has other arrays: {sorted(here.keys() ^ state.keys())}")
        for name, array in here.items():
            there, free = state[name], 2 if name == "actions" else 1  # the log's length may differ
            if there.dtype != array.dtype or there.shape[:1] != array.shape[:1] or there.shape[free:] != array.shape[free:]:
                raise ValueError(f"{name} is {there.dtype}{there.shape}, {self.id} holds {array.dtype}{array.shape}")
        length = state["actions"].shape[1]
        if (state["elapsed"] > length).any() or (state["elapsed"] < 0).any():
            raise ValueError(f"elapsed of {self.id} does not fit its {length} recorded actions")
        if length > self._log.shape[1]:
            self._log = np.zeros((self.num_envs, 2 * length, *self._log.shape[2:]), self._log.dtype)
        actions = state["actions"].reshape(self.num_envs, length, *self._log.shape[2:])
        self._log[:, :length] = actions
        b.copy_seed[:], b.episode[:] = state["copy_seed"], state["episode"]
        b.terminated[:] = False
        b.truncated[:] = False
        self._over[:] = state["over"]
        same: Array = self._loop.replay(self._their_actions(actions), state["elapsed"], state["over"])
        self._over &= same
        same = same & (b.running == state["running_return"]).all(1)
        for i in np.flatnonzero(same):
            same[i] = np.array_equal(b.obs[i], state["obs"][i], equal_nan=b.obs.dtype.kind == "f")
        if not same.all():
            share = f"{int((~same).sum())} of {self.num_envs} copies"
            reason = f"environment {self.id} is not deterministic: {share} resume elsewhere, this is another run"
            # a place that is no file: Python then prints one line, not a line of our source as well
            warnings.warn_explicit(ReplayMismatch(reason), None, "<resume>", 0)

    def scene(self, i: int) -> Scene | None:
        return None

    def rgb(self, i: int) -> Array | None:
        """A picture by the environment's own renderer, uint8 (H, W, 3); None if it has none or its packages miss."""
        picture: Array | None = self._loop.draw(i, self._their_actions(self._log[i, : self._b.elapsed[i]]))
        return picture

    def yardstick(self) -> Yardstick | None:
        return None

    def close(self) -> None:
        self._loop.close()

    def __repr__(self) -> str:
        workers = f", workers={self.workers}" if self.workers else ""
        return f"ForeignBatch({self.id!r}, num_envs={self.num_envs}, options={self.options!r}{workers})"


class _Viewer:
    """One more environment that can draw; it follows a copy by replaying what it has not seen of its episode."""

    def __init__(self, id: str, options: dict[str, Any], like: Copy) -> None:
        facts = like.facts
        self._copy: Copy | None = None  # stays None where there is no renderer
        self._obs = np.zeros((facts.agents, *(facts.observation.shape or ())), facts.observation.dtype)
        self._reward = np.zeros(facts.agents, np.float32)
        if "rgb_array" in (like.env.metadata.get("render_modes") or ()):
            try:
                self._copy = adapt(id, _factory(id)(render_mode="rgb_array", **options))
            except (ImportError, TypeError, gymnasium.error.Error):  # the renderer's packages, or the option, are not there
                self._copy = None
        self._at: tuple[int, int, int] | None = None  # copy, its seed, its episode
        self._done = 0  # steps of that episode that the viewer has played

    def show(self, which: tuple[int, int, int], seed: int, actions: Array, mark: Array) -> Array | None:
        if self._copy is None:
            return None
        if which != self._at or self._done > len(actions):
            self._copy.reset(seed, self._obs)
            self._at, self._done = which, 0
        for action in actions[self._done :]:
            self._copy.step(action, self._obs, self._reward)
            mark[2] += 1
        self._done = len(actions)
        try:
            frame: Any = self._copy.env.render()
        except (ImportError, gymnasium.error.Error):  # the renderer's packages are not here
            self._copy = None
            return None
        return None if frame is None else np.asarray(frame, np.uint8)

    def close(self) -> None:
        if self._copy is not None:
            self._copy.env.close()
