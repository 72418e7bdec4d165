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
from .copies import Copy, Facts, adapt
from .make import _factory, _one_line

DOING = (  # what `Buffers.mark` says that a copy is doing
    "between two calls",
    "while it was made",
    "in reset() of episode {episode}",
    "in step {elapsed} of episode {episode}",
    "replaying step {elapsed} of episode {episode}",
    "while it was drawn",
)


IDLE, MAKE, RESET, STEP, REPLAY, DRAW = range(len(DOING))


class EnvironmentFailed(ValueError):
    """One copy of a foreign environment raised, died or hung: a line that names it, then the traceback if there is one."""

    def __init__(self, line: str, copy: int, trace: str = "") -> None:
        super().__init__(line, copy, trace)
        self.line, self.env, self.trace = line, copy, trace

    def __str__(self) -> str:
        return f"{self.line}\n{self.trace}".rstrip()


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
    """A plain loop over copies that live in this process; `b` holds the rows of these copies.

    `first` is the first copy's number in the whole batch: errors name copies by it.
    """

    def __init__(self, id: str, options: dict[str, Any], copies: list[Copy], b: Buffers, first: int = 0) -> None:
        self._id, self._options, self._copies, self._b, self._first = id, options, copies, b, first
        self._mark = b.mark[0]
        self._rows = [(copy.step, b.action[i], b.obs[i], b.reward[i]) for i, copy in enumerate(copies)]
        self._viewer: _Viewer | None = None

    def _failed(self, error: BaseException) -> EnvironmentFailed:
        i, doing = int(self._mark[0]), DOING[int(self._mark[1])]
        doing = doing.format(elapsed=self._b.elapsed[i], episode=self._b.episode[i])
        what, trace = where_failed(error)
        return EnvironmentFailed(
            f"environment {self._id}: copy {self._first + i} failed {doing}: {what}", self._first + i, trace
        )

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
