"""The loop over external environments: seeds, steps, resets, replay, and which one failed where."""

from __future__ import annotations

import traceback
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete

from ...store.arrays import Array
from ..rng import GOLDEN, mix
from .environments import ExternalEnv, ExternalSpaces, adapt
from .make import _factory, _one_line

DOING = (  # what `LoopBuffers.mark` says that an environment is doing
    "between two calls",
    "while it was made",
    "in reset() of episode {episode}",
    "in step {elapsed} of episode {episode}",
    "replaying step {elapsed} of episode {episode}",
    "while it was drawn",
)


IDLE, MAKE, RESET, STEP, REPLAY, DRAW = range(len(DOING))


class EnvironmentFailed(ValueError):
    """An external environment raised, died or hung: a line that names it, then the traceback if there is one."""

    def __init__(self, line: str, env: int, trace: str = "") -> None:
        super().__init__(line, env, trace)
        self.line, self.env, self.trace = line, env, trace

    def __str__(self) -> str:
        return f"{self.line}\n{self.trace}".rstrip()


class LoopBuffers(NamedTuple):
    """Arrays that a batch and its loops share, first axis the environment (N) and the second the agent (A)."""

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
    episode: Array  # int64 (N,): number of the running episode since the environment was seeded
    mask: Array  # bool (N, A, actions): legal actions of `obs`
    final_mask: Array  # bool (N, A, actions): of `final_obs`
    masked: Array  # bool (N,): the environment gives masks, as its first reset has shown
    mark: Array  # int64 (loops, 3): environment within its loop, place in DOING, and a number that grows while it draws


def layout(spaces: ExternalSpaces, n: int, loops: int) -> list[tuple[tuple[int, ...], Any]]:
    """Shapes and dtypes of `LoopBuffers`."""
    a, box, theirs = spaces.agents, spaces.observation, spaces.theirs
    shape = () if isinstance(theirs, Discrete) else theirs.shape
    seen, f32, f64, i64 = ((n, a, *(box.shape or ())), box.dtype), np.float32, np.float64, np.int64
    legal = (n, a, max(spaces.choices, 1)), np.bool_
    return [
        seen, ((n, a), f32), ((n,), np.bool_), ((n,), np.bool_), seen, ((n, a, *shape), theirs.dtype), ((n,), i64),
        ((n, a), f64), ((n, a), f64), ((n,), i64), ((n,), np.uint64), ((n,), i64),
        legal, legal, ((n,), np.bool_), ((loops, 3), i64),
    ]  # fmt: skip


HERE = Path(__file__).parent  # frames in this folder say nothing about the environment


def episode_seed(copy_seed: Any, episode: Any) -> int:
    """Seed of an episode: 31 bits, which is what every environment's generator takes."""
    with np.errstate(over="ignore"):
        return int(mix(copy_seed + np.uint64(episode + 1) * GOLDEN) >> np.uint64(33))


def where_failed(error: BaseException) -> tuple[str, str]:
    """('KeyError: 3 (maze.py:12 in step)', the traceback from the first frame that is not this package's)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and Path(trace.tb_frame.f_code.co_filename).parent == HERE:
        trace = trace.tb_next
    frames = traceback.extract_tb(trace)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    text = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    return f"{type(error).__name__}: {_one_line(error)}"[:300] + place, text


class Loop:
    """A plain loop over environments that live in this process; `b` holds the rows of these environments.

    `first` is the first environment's number in the whole batch: errors name environments by it.
    """

    def __init__(self, id: str, options: dict[str, Any], envs: list[ExternalEnv], b: LoopBuffers, first: int = 0) -> None:
        self._id, self._options, self._envs, self._b, self._first = id, options, envs, b, first
        self._mark = b.mark[0]
        self._rows = [(env.step, b.action[i], b.obs[i], b.reward[i], b.mask[i]) for i, env in enumerate(envs)]
        self._masked: bool | None = None  # whether they give masks; the first reset says so
        self._viewer: _Viewer | None = None

    def _failed(self, error: BaseException) -> EnvironmentFailed:
        i, doing = int(self._mark[0]), DOING[int(self._mark[1])]
        doing = doing.format(elapsed=self._b.elapsed[i], episode=self._b.episode[i])
        what, trace = where_failed(error)
        return EnvironmentFailed(
            f"environment {self._id}: environment {self._first + i} failed {doing}: {what}", self._first + i, trace
        )

    def reset(self) -> None:
        """Begin the episodes that `episode` counts, in all environments."""
        try:
            for i in range(len(self._envs)):
                self._begin(i)
        except (Exception, SystemExit) as error:  # a stranger's code: whatever it raises is its environment's failure
            raise self._failed(error) from error
        self._mark[1] = IDLE

    def _begin(self, i: int) -> None:
        b = self._b
        self._mark[0], self._mark[1] = i, RESET
        b.elapsed[i] = 0
        b.running[i] = 0.0
        masked = self._envs[i].reset(episode_seed(b.copy_seed[i], b.episode[i]), b.obs[i], b.mask[i])
        if masked is not self._masked:
            if self._masked is not None:
                raise ValueError(_inconsistent("reset()", masked))
            self._masked = masked
        b.masked[i] = masked

    def step(self, autoreset: bool) -> None:
        """One step of all environments with the actions in `action`; `elapsed` counts it already."""
        b, mark = self._b, self._mark
        try:
            mark[1] = STEP
            for i, (step, action, obs, reward, mask) in enumerate(self._rows):
                mark[0] = i
                terminated, truncated, masked = step(action, obs, reward, mask)
                if masked is not self._masked:
                    self._check_masked(masked, terminated, mask)
                b.terminated[i] = terminated
                b.truncated[i] = truncated
                if terminated or truncated:
                    self._end(i, autoreset)
                    mark[1] = STEP
        except (Exception, SystemExit) as error:
            raise self._failed(error) from error
        mark[1] = IDLE
        np.add(b.running, b.reward, out=b.running, where=~(b.terminated | b.truncated)[:, None])

    def _check_masked(self, masked: bool, terminated: bool, mask: Array) -> None:
        """After a step that gave a mask where the first reset gave none, or the other way round: only a step that ends an
        episode may leave it out. Raises ValueError."""
        if masked or not terminated:
            raise ValueError(_inconsistent("step()", masked))
        mask[:] = True

    def _end(self, i: int, autoreset: bool) -> None:
        """Close the books of environment `i`, and begin its next episode if asked to."""
        b = self._b
        b.final_obs[i] = b.obs[i]
        b.final_mask[i] = b.mask[i]
        b.ended_return[i] = b.running[i] + b.reward[i]
        b.ended_length[i] = b.elapsed[i]
        if autoreset:
            b.episode[i] += 1
            self._begin(i)
        else:
            b.running[i] = b.ended_return[i]

    def replay(self, actions: Array, elapsed: Array, over: Array) -> Array:
        """Play the episodes again: `actions` (N, T, A, ...), of which `elapsed` (N,) count. True where they are as they were.

        `over` (N,): the last action ended the episode, and the environment has not begun another. Where a replay ends when it
        should not have, the environment begins its next episode.
        """
        whole = np.ones(len(self._envs), np.bool_)
        try:
            for i in range(len(self._envs)):
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
            terminated, truncated, masked = self._envs[i].step(action, b.obs[i], b.reward[i], b.mask[i])
            if masked is not self._masked:
                self._check_masked(masked, terminated, b.mask[i])
            ended = terminated or truncated
            if ended and not (over and b.elapsed[i] == len(actions)):  # it did not when it was recorded
                b.episode[i] += 1
                self._begin(i)
                return False
            b.running[i] += b.reward[i]
        return ended == over

    def draw(self, i: int, actions: Array) -> Array | None:
        """A picture of environment `i` (of this loop), whose running episode's actions are `actions` (T, A, ...)."""
        b, mark = self._b, self._mark
        mark[0], mark[1] = i, DRAW
        try:
            if self._viewer is None:
                self._viewer = _Viewer(self._id, self._options, self._envs[0])
            which = (i, int(b.copy_seed[i]), int(b.episode[i]))
            picture = self._viewer.show(which, episode_seed(b.copy_seed[i], b.episode[i]), actions, mark)
        except (Exception, SystemExit) as error:
            raise self._failed(error) from error
        mark[1] = IDLE
        return picture

    def close(self) -> None:
        for closing in (*(env.env for env in self._envs), *([self._viewer] if self._viewer else [])):
            try:
                closing.close()
            except Exception as error:  # a stranger's: the others are closed all the same, and no run fails at its end
                warnings.warn(f"environment {self._id} could not be closed: {type(error).__name__}: {error}", stacklevel=2)


def _inconsistent(call: str, masked: bool) -> str:
    gave = "gives an action_mask, which the first reset() did not" if masked else "gives no action_mask, the first reset() did"
    return f"{call} {gave}: give it in info or observation each time, or ignore masks with action_mask=false"


class _Viewer:
    """One more environment that can draw; it follows an environment by replaying what it has not seen of its episode."""

    def __init__(self, id: str, options: dict[str, Any], like: ExternalEnv) -> None:
        spaces = like.spaces
        self._env: ExternalEnv | None = None  # stays None where there is no renderer
        self._obs = np.zeros((spaces.agents, *(spaces.observation.shape or ())), spaces.observation.dtype)
        self._reward = np.zeros(spaces.agents, np.float32)
        self._mask = np.zeros((spaces.agents, max(spaces.choices, 1)), np.bool_)
        if "rgb_array" in (like.env.metadata.get("render_modes") or ()):
            try:
                self._env = adapt(id, _factory(id)(render_mode="rgb_array", **options))
            except (ImportError, TypeError, gymnasium.error.Error):  # the renderer's packages, or the option, are not there
                self._env = None
        self._at: tuple[int, int, int] | None = None  # environment, its seed, its episode
        self._done = 0  # steps of that episode that the viewer has played

    def show(self, which: tuple[int, int, int], seed: int, actions: Array, mark: Array) -> Array | None:
        if self._env is None:
            return None
        if which != self._at or self._done > len(actions):
            self._env.reset(seed, self._obs, self._mask)
            self._at, self._done = which, 0
        for action in actions[self._done :]:
            self._env.step(action, self._obs, self._reward, self._mask)
            mark[2] += 1
        self._done = len(actions)
        try:
            frame: Any = self._env.env.render()
        except (ImportError, gymnasium.error.Error):  # the renderer's packages are not here
            self._env = None
            return None
        return None if frame is None else np.asarray(frame, np.uint8)

    def close(self) -> None:
        if self._env is not None:
            self._env.env.close()
