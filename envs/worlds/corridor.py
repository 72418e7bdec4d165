"""Corridors for diagnosis, one dial for each difficulty: memory, delayed credit, reward scale, reward noise, distractors."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ..registry import world
from ..rng import GOLDEN, below, bits, mix, normal
from ..world import MOST_STEPS, Entity, Model, Preset, Scene, World, WorldConfig, Yardstick, outside, rule

MEMORY, DELAY, MATCH = 0, 1, 2
MODEL_ENTRIES = 2**20  # states x actions x outcomes up to which an exact model is built
WINDOW = 24  # cells of a long corridor that a picture shows
ONE, S40 = np.uint64(1), np.uint64(40)


@world("corridor")
class Corridor(World):
    """Walk down a corridor, a cell each step, and do at the right time what the cue says (after bsuite, Osband et al. 2020).

    task=memory: the cue is seen at the first step only; `length` steps later the action must be equal to it. task=delay:
    the first action must be equal to the cue, and is paid `length` steps later; the steps between pay + or -`distraction`
    by the toss of a coin. task=match: a new cue at each of `length` steps, paid at once. What is right pays `reward_scale`,
    everything else 0; noise of standard deviation `reward_noise` is added at every step.

    Observation, float32 (2 * choices + 2 + distractors,): the cue as one-hot where it is seen (delay: at all steps), the
    first action as one-hot (delay, from the second step on), the share of steps done, 1 where the action counts, and
    numbers in [0, 1) that are redrawn at each step and mean nothing.
    """

    class Config(WorldConfig):
        task: Literal["memory", "delay", "match"] = Field("memory", description="what is asked")
        length: int = Field(10, ge=1, le=100_000, description="steps between cue and answer, or answer and pay; steps of match")
        choices: int = Field(2, ge=2, le=64, description="cues, and actions")
        distraction: float = Field(1.0, ge=0, le=1e6, description="size of the rewards between, in delay; scaled like the rest")
        reward_scale: float = Field(1.0, gt=0, le=1e6, description="factor of the rewards")
        reward_noise: float = Field(0.0, ge=0, le=1e6, description="standard deviation of noise on each reward, unscaled")
        distractors: int = Field(0, ge=0, le=1000, description="random numbers in the observation")
        time_limit: int = Field(
            0, ge=0, le=MOST_STEPS, description="steps until an episode is truncated, unseen; 0 means never"
        )

    presets = {
        "memory-length": Preset("Repeat a cue after 20 steps; without memory the mean return is 1/2", {"length": 20}),
        "delayed-credit": Preset("The first action pays after 20 steps of random rewards", {"task": "delay", "length": 20}),
        "reward-scale": Preset("Match the cue for rewards of 100", {"task": "match", "reward_scale": 100.0}),
        "reward-noise": Preset("Match the cue; noise of sd 1 hides rewards of 1", {"task": "match", "reward_noise": 1.0}),
        "distractors": Preset("Match the cue among 16 numbers that mean nothing", {"task": "match", "distractors": 16}),
    }

    class State(NamedTuple):
        time: Array  # int32 (N,): steps done
        cue: Array  # uint8 (N,)
        choice: Array  # uint8 (N,): the first action in delay; `choices`: none
        salt: Array  # uint64 (N,): the distractors are hashes of it

    class Constants(NamedTuple):
        task: int
        choices: int
        last: int  # number of the last step, from 0
        share: float  # 1 / steps
        distraction: float
        scale: float
        noise: float
        distractors: int

    @property
    def _steps(self) -> int:
        return int(self.config.length) + (self.config.task != "match")

    @property
    def horizon(self) -> int:
        return min(self._steps, self.config.time_limit or self._steps)

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        return gymnasium.spaces.Box(0, 1, (2 * self.config.choices + 2 + self.config.distractors,), np.float32)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(self.config.choices)

    def allocate(self, n: int) -> State:
        return self.State(np.zeros(n, np.int32), np.zeros(n, np.uint8), np.zeros(n, np.uint8), np.zeros(n, np.uint64))

    def constants(self) -> Constants:
        o, steps = self.config, self._steps
        task = ("memory", "delay", "match").index(o.task)
        return self.Constants(
            task, o.choices, steps - 1, 1 / steps, o.distraction, o.reward_scale, o.reward_noise, o.distractors
        )

    @rule
    def reset(s: Any, i: int, c: Any, rng: Array) -> None:
        s.time[i] = 0
        s.cue[i] = below(rng, i, c.choices)
        s.choice[i] = c.choices
        if c.distractors > 0:
            s.salt[i] = bits(rng, i)

    @rule
    def step(s: Any, i: int, action: Array, c: Any, rng: Array, reward: Array) -> bool:
        t = s.time[i]
        pay = 0.0
        if c.task == MATCH:
            pay = 1.0 if action[0] == s.cue[i] else 0.0
            s.cue[i] = below(rng, i, c.choices)
        elif c.task == MEMORY:
            pay = 1.0 if t == c.last and action[0] == s.cue[i] else 0.0
        else:
            if t == 0:
                s.choice[i] = action[0]
            elif t == c.last:
                pay = 1.0 if s.choice[i] == s.cue[i] else 0.0
            else:
                pay = c.distraction * (2.0 * np.float64(bits(rng, i) & ONE) - 1.0)
        pay *= c.scale
        if c.noise > 0.0:
            pay += c.noise * normal(rng, i)
        if c.distractors > 0:
            s.salt[i] = bits(rng, i)
        reward[0] = pay
        s.time[i] = t + 1
        return t >= c.last

    @rule
    def observe(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        t, n = s.time[i], c.choices
        cue = s.cue[i] if c.task != MEMORY or t == 0 else n
        for j in range(n):
            out[j] = 1.0 if j == cue else 0.0
            out[n + j] = 1.0 if j == s.choice[i] else 0.0
        out[2 * n] = t * c.share
        at = c.last if c.task == MEMORY else 0 if c.task == DELAY else t
        out[2 * n + 1] = 1.0 if t == at and t <= c.last else 0.0
        word = s.salt[i]
        for j in range(2 * n + 2, 2 * n + 2 + c.distractors):
            word += GOLDEN
            out[j] = np.float64(mix(word) >> S40) * 2.0**-24  # 24 bits: exact in float32, never 1

    def check_state(self, s: Any) -> str | None:
        o = self.config
        wrong = outside(s.time, 0, self._steps) or outside(s.cue, 0, o.choices - 1) or outside(s.choice, 0, o.choices)
        return "time, cue or choice is out of bounds" if wrong else None

    def scene(self, s: Any, i: int) -> Scene:
        o, steps = self.config, self._steps
        t = min(int(s.time[i]), steps - 1)
        width = min(steps, WINDOW)
        left = min(max(t - width // 2, 0), steps - width)
        cells = np.array([["#"] * width, ["."] * width])  # the cue hangs on a wall along the corridor
        shown = [Entity(1, t - left, "agent")]
        sign = t if o.task == "match" else 0
        if left <= sign < left + width:
            cells[0, sign - left] = "."
            shown.append(Entity(0, sign - left, "candy", int(s.cue[i])))
        if o.task != "match" and left + width == steps:
            shown.append(Entity(1, width - 1, "goal"))
        first = f", first action {s.choice[i]}" if s.choice[i] < o.choices else ""
        return Scene(cells, tuple(shown), caption=f"step {s.time[i]} of {steps}, cue {s.cue[i]}{first}")

    @property
    def solver(self) -> str:
        return "closed form"

    def yardstick(self, s: Any) -> Yardstick:
        """Noise and tosses of a coin have mean 0, and an answer is right by chance once in `choices`."""
        o, n = self.config, len(s.time)
        right = float(self.horizon) if o.task == "match" else float(self.horizon == self._steps)
        meaning = "optimum of an agent that remembers the cue" if o.task == "memory" else "optimum"
        return Yardstick(np.full(n, o.reward_scale * right / o.choices), np.full(n, o.reward_scale * right), meaning)

    def model(self, s: Any, i: int) -> Model | None:
        """States: (steps done, cue, first action); the first action matters in delay only."""
        o, steps, n = self.config, self._steps, int(self.config.choices)
        firsts = n + 1 if o.task == "delay" else 1
        outcomes = {"memory": 1, "delay": 2, "match": n}[o.task]
        if steps * n * firsts * n * outcomes > MODEL_ENTRIES:
            return None
        shape = (steps, n, firsts, n, outcomes)
        t, cue, first, action, outcome = np.ogrid[tuple(slice(0, size) for size in shape)]
        if o.task == "match":
            after, kept, pay = outcome, first, 1.0 * (action == cue)
        elif o.task == "memory":
            after, kept, pay = cue, first, 1.0 * ((t == steps - 1) & (action == cue))
        else:
            after, kept = cue, np.where(t == 0, action, first)
            between = (t > 0) & (t < steps - 1)
            pay = between * o.distraction * (2.0 * outcome - 1) + ((t == steps - 1) & (first == cue))
        number = (np.minimum(t + 1, steps - 1) * n + after) * firsts + kept

        def full(values: Any) -> Array:
            return np.ascontiguousarray(np.broadcast_to(values, shape)).reshape(steps * n * firsts, n, outcomes)

        here = np.indices(shape[:3]).reshape(3, -1)
        choice = here[2] if o.task == "delay" else np.full(here.shape[1], n)
        fields = {"time": here[0].astype(np.int32), "cue": here[1].astype(np.uint8), "choice": choice.astype(np.uint8)}
        begin = int(s.choice[i]) if o.task == "delay" else 0
        start = (min(int(s.time[i]), steps - 1) * n + int(s.cue[i])) * firsts + begin
        return Model(full(number), full(1 / outcomes), o.reward_scale * full(pay), full(t == steps - 1), start, fields)
