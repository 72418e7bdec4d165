"""Multi-armed bandits: k arms, `pulls` pulls, a fresh task each episode; with contexts, and with arms that change.

Lattimore & Szepesvari 2020, "Bandit Algorithms", names and analyses most members of this family.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, NamedTuple

import gymnasium
import numpy as np
from pydantic import Field, field_validator, model_validator

from ...store.arrays import Array
from ..registry import world
from ..rng import S11, TO_UNIT, below, bits, fresh_streams, natural_log, normal, unit
from ..solvers import bayes
from ..world import MOST_STEPS, Model, Preset, Scene, World, WorldConfig, Yardstick, helper, outside, rule

REWARDS = BERNOULLI, GAUSSIAN, BETA, EXACT = 0, 1, 2, 3
DYNAMICS = STATIONARY, DRIFT, SWITCH, RESTLESS, ADVERSARY = 0, 1, 2, 3, 4
CONTEXTS = NO_CONTEXT, LINEAR, NONLINEAR = 0, 1, 2
OBSERVATIONS = NOTHING, LAST, CONTEXT, COUNTS, MEANS = 0, 1, 2, 3, 4
FARTHEST = 8.3  # no draw of `normal` is farther from 0: its probabilities are multiples of 2^-53
JITTER = 1e-8  # on the diagonal of the kernel matrix, which is singular in float64 for close arms
MODEL_STATES = 100_000
EXP = np.array([1.0 / math.factorial(n) for n in range(16)])


@helper
def exponential(x: float) -> float:
    """e^x for x <= 0 within a few units in the last place, 0 below -700; +, -, * alone, so the same bits everywhere."""
    if x < -700.0:
        return 0.0
    halvings = int(0.5 - x * 1.4426950408889634)
    rest = (x + halvings * 0.693147180369123816490) + halvings * 1.90821492927058770002e-10  # ln 2 in two parts
    value = 0.0
    for n in range(15, -1, -1):
        value = value * rest + EXP[n]
    scale, power = 0.5, 1.0
    while halvings > 0:
        if halvings & 1:
            power *= scale
        scale *= scale
        halvings >>= 1
    return value * power


def _ziggurat() -> tuple[Array, Array]:
    """Right edges of the layers, from the widest on, and the normal density (1 at 0) there; (LAYERS + 1,) each."""
    edge, height = np.zeros(LAYERS + 1), np.ones(LAYERS + 1)
    edge[1], height[1] = TAIL, exponential(-0.5 * TAIL * TAIL)
    edge[0] = AREA / height[1]  # the bottom layer, as wide as a box of its area
    height[0] = exponential(-0.5 * edge[0] * edge[0])
    for n in range(2, LAYERS):
        height[n] = height[n - 1] + AREA / edge[n - 1]
        edge[n] = np.sqrt(-2.0 * natural_log(height[n]))
    return edge, height


LAYERS, TAIL, AREA = 128, 3.442619855899, 9.91256303526217e-3  # Marsaglia & Tsang 2000, table for 128 layers
EDGE, HEIGHT = _ziggurat()
SURE = EDGE[1:] / EDGE[:-1]  # below this share of its width, a layer lies wholly under the density
LOW_BITS = np.uint64(LAYERS - 1)


@helper
def quick_normal(rng: Array, i: int) -> float:
    """A standard normal float64 in mostly one draw, thrice as fast as `normal` (ziggurat; Doornik 2005, ZIGNOR)."""
    while True:
        word = bits(rng, i)
        layer = np.int64(word & LOW_BITS)
        u = np.float64(word >> S11) * (2.0 * TO_UNIT) - 1.0
        x = u * EDGE[layer]
        if abs(u) < SURE[layer]:
            return x
        if layer == 0:  # beyond TAIL: Marsaglia 1964
            while True:
                far = -natural_log(1.0 - unit(rng, i)) / TAIL
                if -2.0 * natural_log(1.0 - unit(rng, i)) >= far * far:
                    return TAIL + far if u > 0.0 else -TAIL - far
        top, here = HEIGHT[layer + 1], HEIGHT[layer]
        if top + unit(rng, i) * (here - top) < exponential(-0.5 * x * x):
            return x


@helper
def gamma_draw(rng: Array, i: int, shape: float) -> float:
    """A gamma variate with scale 1, float64, `shape` > 0 (Marsaglia & Tsang 2000; below 1 by their section 6)."""
    d = (shape if shape >= 1.0 else shape + 1.0) - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    value = -1.0
    while value < 0.0:
        x = quick_normal(rng, i)
        v = 1.0 + c * x
        u = 1.0 - unit(rng, i)  # never 0
        if v > 0.0:
            v = v * v * v
            square = x * x
            if u < 1.0 - 0.0331 * square * square or natural_log(u) < 0.5 * square + d - d * v + d * natural_log(v):
                value = d * v
    if shape < 1.0:
        log = natural_log(1.0 - unit(rng, i))
        value = 0.0 if -log > 700.0 * shape else value * exponential(log / shape)
    return value


@helper
def beta_draw(rng: Array, i: int, mean: float, concentration: float) -> float:
    """A variate of Beta(mean * concentration, (1 - mean) * concentration), float64; 0 or 1 where the mean is."""
    if mean <= 0.0 or mean >= 1.0:
        return mean
    a = b = 0.0
    for part in range(2):  # one call site: the compiler inlines it
        a, b = b, gamma_draw(rng, i, (mean if part == 0 else 1.0 - mean) * concentration)
    if a + b <= 0.0:  # both too small for float64
        return 1.0 if unit(rng, i) < mean else 0.0
    return a / (a + b)


@helper
def direction(rng: Array, i: int, out: Array, start: int, size: int) -> None:
    """A vector that is uniform on the unit sphere, to out[i, start : start + size]: normals, divided by their length."""
    square = 0.0
    for j in range(start, start + size):
        x = quick_normal(rng, i)
        out[i, j] = x
        square += x * x
    scale = 1.0 / np.sqrt(square)
    for j in range(start, start + size):
        out[i, j] *= scale


@helper
def inside_unit(x: float) -> float:
    """`x` clipped to 0..1."""
    return 0.0 if x < 0.0 else 1.0 if x > 1.0 else x


@helper
def draw_task(s: Any, i: int, c: Any, rng: Array) -> None:
    """A new task into environment `i`: means of the arms, or weights, or where in the adversary's sequence each arm stands."""
    if c.context != NO_CONTEXT:
        for w in range(1 if c.shared else c.arms):
            direction(rng, i, s.weights, w * c.features, c.features)
    elif c.dynamics == RESTLESS:
        for k in range(c.arms):
            s.mean[i, k] = c.high if unit(rng, i) < c.good else c.low
    elif c.dynamics == ADVERSARY:
        s.shift[i] = below(rng, i, c.arms)
    elif c.line:  # f = L z with L L' the kernel, in place: row k needs z[0..k] only
        for k in range(c.arms):
            s.mean[i, k] = normal(rng, i)
        for k in range(c.arms - 1, -1, -1):
            f = 0.0
            for j in range(k + 1):
                f += c.factor[k, j] * s.mean[i, j]
            m = 0.5 + c.spread * f
            s.mean[i, k] = m if c.kind == GAUSSIAN else inside_unit(m)
    else:
        for k in range(c.arms):
            s.mean[i, k] = unit(rng, i)


@helper
def draw_context(s: Any, i: int, c: Any, rng: Array) -> None:
    """New context vectors, and what each arm pays on average in them."""
    for v in range(c.arms if c.shared else 1):
        direction(rng, i, s.context, v * c.features, c.features)
    for k in range(c.arms):
        w, x = (0, k * c.features) if c.shared else (k * c.features, 0)
        score = 0.0
        for j in range(c.features):
            score += s.weights[i, w + j] * s.context[i, x + j]
        s.mean[i, k] = inside_unit(0.5 + 0.5 * score if c.context == LINEAR else score * score)


@helper
def read_sequence(s: Any, i: int, c: Any) -> None:
    """What the adversary wrote down for the coming pull; all columns beyond the last are the last."""
    row = s.pulls[i] % c.sequence.shape[0]
    for k in range(c.arms):
        column = (k + s.shift[i]) % c.arms
        s.mean[i, k] = c.sequence[row, min(column, c.sequence.shape[1] - 1)]


@world("bandit")
class Bandit(World):
    """k arms with means drawn from U[0, 1] at the start of each episode (Lai & Robbins 1985; RL^2, Duan et al. 2016).

    Action: the arm. `reward` is what a pull pays around the arm's mean m: bernoulli 1 or 0; gaussian N(m, sd^2); beta
    Beta(m n, (1 - m) n) with n = `concentration`; adversarial a sequence that was written down before the episode.
    Observation, float32: last (k + 2,) the last arm as one-hot, the last reward, the share of pulls done; context the
    context alone; counts (2k + 1,) pulls and sum of rewards of each arm, share of pulls; means (k,) what each arm pays on
    average now; none (1,) always 1. With a context, it follows in last and in counts. What is not seen must be remembered.

    `dynamics`: drift, a Gaussian random walk of all means, reflected into [0, 1], so that they stay U[0, 1]; switch, all
    redrawn with a chance per pull or every so many; restless, each arm a two-state Markov chain that moves whether
    pulled or not (Whittle 1988), started in its stationary law. With `context`, a vector x uniform on the unit sphere
    comes with each pull and arm a pays (1 + w_a x) / 2, or (w_a x)^2, on average; weights w are uniform on the sphere: a
    vector for each arm (disjoint; Li et al. 2010), or one for all, and then a vector x of its own for each arm (shared; Chu
    et al. 2011). With `length_scale`, arms stand evenly on a line of length 1 and their means are 0.5 + `spread` times a
    Gaussian process with an RBF kernel (GP-UCB, Srinivas et al. 2010), clipped to [0, 1] unless rewards are Gaussian.
    """

    class Config(WorldConfig):
        arms: int = Field(5, ge=2, le=1000, description="how many arms, k")
        reward: Literal["bernoulli", "gaussian", "beta", "adversarial"] = Field(
            "bernoulli", description="distribution of a pull"
        )
        sd: float = Field(0.3, ge=0, le=100, description="standard deviation of a Gaussian pull")
        concentration: float = Field(4.0, ge=0.5, le=1e6, description="of a beta pull: variance m (1 - m) / (1 + this)")
        sequence: tuple[tuple[float, ...], ...] = Field(
            (), description="rewards in 0..1 that an adversary pays: rows of k, again from the first after the last"
        )
        gap: float = Field(0.2, gt=0, le=1, description="lead of the best arm, where the adversary has no sequence")
        dynamics: Literal["stationary", "drift", "switch", "restless"] = Field(
            "stationary", description="how the means change within an episode"
        )
        drift: float = Field(0.05, gt=0, le=1, description="standard deviation of the random walk's step")
        switch: float = Field(0.02, ge=0, le=1, description="probability, after each pull, that all means are redrawn")
        switch_every: int = Field(0, ge=0, le=MOST_STEPS, description="redraw after every so many pulls instead; 0: by chance")
        low: float = Field(0.0, ge=0, le=1, description="mean of a restless arm in its bad state")
        high: float = Field(1.0, ge=0, le=1, description="mean of a restless arm in its good state")
        rise: float = Field(0.1, gt=0, le=1, description="probability that a bad restless arm turns good, per pull")
        fall: float = Field(0.1, gt=0, le=1, description="probability that a good restless arm turns bad, per pull")
        context: Literal["none", "linear", "nonlinear"] = Field("none", description="how a pull pays by a context vector")
        features: int = Field(4, ge=2, le=256, description="length of a context vector")
        weights: Literal["disjoint", "shared"] = Field(
            "disjoint", description="weights of the context: one vector for each arm, or one on a context of each arm"
        )
        length_scale: float = Field(
            0.0, ge=0, le=100, description="of the correlation of arms on a line of length 1; 0: independent, U[0, 1]"
        )
        spread: float = Field(0.25, gt=0, le=100, description="standard deviation of a mean on the line")
        observation: Literal["none", "last", "context", "counts", "means"] = Field("last", description="what an agent sees")
        fresh: bool = Field(True, description="a new task each episode; false: the one of task_seed every time")
        task_seed: int = Field(0, ge=0, lt=2**63, description="which task, where fresh is false")
        pulls: int = Field(100, ge=1, le=1_000_000, description="pulls per episode, known to the agent")
        time_limit: int = Field(
            0, ge=0, le=MOST_STEPS, description="steps until an episode is truncated, unseen; 0 means never"
        )

        @field_validator("sequence")
        @classmethod
        def _in_bounds(cls, sequence: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
            if any(not 0 <= value <= 1 for row in sequence for value in row):
                raise ValueError("rewards of a sequence must be in 0..1: rescale them")
            return sequence

        @model_validator(mode="after")
        def _fit_together(self) -> Any:
            adversarial, contextual, line = self.reward == "adversarial", self.context != "none", self.length_scale > 0
            if self.sequence and not adversarial:
                raise ValueError("a sequence is what an adversary pays: add reward=adversarial")
            if any(len(row) != self.arms for row in self.sequence):
                lengths = sorted({len(row) for row in self.sequence})
                raise ValueError(f"rows of the sequence have lengths {lengths}: give a reward for each of {self.arms} arms")
            if adversarial + contextual + line > 1:
                raise ValueError("choose one of reward=adversarial, context and length_scale: each says where means come from")
            if self.dynamics != "stationary" and adversarial:
                raise ValueError("an adversary's sequence says how rewards change: use dynamics=stationary")
            if self.dynamics in ("drift", "restless") and (contextual or line):
                what = "a context" if contextual else "arms on a line"
                raise ValueError(f"{what} cannot go with dynamics={self.dynamics}: use stationary or switch")
            if self.dynamics == "switch" and not self.switch and not self.switch_every:
                raise ValueError("dynamics=switch never switches: set switch or switch_every")
            if self.low >= self.high:
                raise ValueError(f"low is {self.low:g}, high is {self.high:g}: the good state must pay more")
            if self.observation == "context" and not contextual:
                raise ValueError("observation=context needs a context: set context=linear or nonlinear")
            return self

    presets: ClassVar[dict[str, Preset]] = {
        "bandit-gaussian": Preset(
            "Gaussian arms, 500 pulls, as in DPT (Lee et al. 2023)", {"reward": "gaussian", "pulls": 500}
        ),
        "bandit-beta": Preset("rewards between 0 and 1, beta distributed", {"reward": "beta"}),
        "bandit-adversarial": Preset(
            "means jump, the gap stays: stochastically constrained adversary (Zimmert & Seldin 2021)",
            {"reward": "adversarial"},
        ),
        "bandit-drift": Preset("means walk at random: what was learnt wears out", {"dynamics": "drift"}),
        "bandit-switch": Preset("all means are redrawn now and then, unannounced", {"dynamics": "switch"}),
        "bandit-restless": Preset(
            "arms turn good and bad whether pulled or not (Whittle 1988); the exact optimum is known",
            {"dynamics": "restless", "arms": 3, "pulls": 40},
        ),
        "bandit-contextual": Preset(
            "linear contextual bandit, weights for each arm: LinUCB's setting (Li et al. 2010)",
            {"context": "linear", "reward": "gaussian", "sd": 0.1},
        ),
        "bandit-contextual-nonlinear": Preset(
            "reward is the square of a linear function of the context: NeuralUCB's first (Zhou et al. 2020)",
            {"context": "nonlinear", "reward": "gaussian", "sd": 0.1},
        ),
        "bandit-line": Preset(
            "20 arms on a line, neighbours alike: for GP-UCB (Srinivas et al. 2010)",
            {"arms": 20, "length_scale": 0.2, "reward": "gaussian", "sd": 0.1},
        ),
        "bandit-fixed": Preset("the same five arms in every episode", {"fresh": False}),
    }

    class State(NamedTuple):
        mean: Array  # float64 (N, k): expected reward of each arm at the coming pull
        arm: Array  # int32 (N,): last arm, -1 before the first pull
        reward: Array  # float32 (N,): last reward
        pulls: Array  # int32 (N,)
        counts: Array  # int32 (N, k): pulls of each arm; (N, 1) and unused unless observation is counts, as is
        total: Array  # float64 (N, k): sum of each arm's rewards
        weights: Array  # float64 (N, W * d): weight vectors, one after the other; (N, 1) without a context, as is
        context: Array  # float64 (N, V * d): context vectors of the coming pull
        shift: Array  # int32 (N,): arm k reads column k + shift (mod arms) of the adversary's sequence

    class Constants(NamedTuple):
        arms: int
        kind: int
        dynamics: int
        context: int
        shows: int
        horizon: int
        sd: float
        concentration: float
        drift: float
        switch: float
        switch_every: int
        low: float
        high: float
        rise: float
        stay: float  # probability that a good arm stays good
        good: float  # share of good arms in the long run
        features: int
        shared: bool
        line: bool
        spread: float
        factor: Array  # float64 (k, k): Cholesky factor of the kernel matrix
        sequence: Array  # float64 (T, columns)
        fixed: bool
        task_mean: Array  # float64 (k,): the one task, where it is fixed
        task_weights: Array  # float64 (W * d,)
        task_shift: int

    static = ("kind", "dynamics", "context", "shows")

    # --- spaces and arrays

    def _mean_bounds(self) -> tuple[float, float]:
        o = self.config
        if o.length_scale > 0 and o.reward == "gaussian":  # a row of the factor has length 1, so |f| <= sqrt(k) max |z|
            reach = o.spread * FARTHEST * math.sqrt(o.arms)
            return 0.5 - reach, 0.5 + reach
        return 0.0, 1.0

    def _reward_bounds(self) -> tuple[float, float]:
        low, high = self._mean_bounds()
        noise = FARTHEST * self.config.sd if self.config.reward == "gaussian" else 0.0
        return low - noise, high + noise

    def _widths(self) -> tuple[int, int]:
        """How many numbers an environment's weights and its context have."""
        o = self.config
        if o.context == "none":
            return 0, 0
        return (o.features, o.arms * o.features) if o.weights == "shared" else (o.arms * o.features, o.features)

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        o = self.config
        bounds: list[tuple[float, float]] = []
        if o.observation == "none":
            bounds += [(0, 1)]
        elif o.observation == "last":
            bounds += [(0, 1)] * o.arms
            bounds += [(min(self._reward_bounds()[0], 0), self._reward_bounds()[1]), (0, 1)]
        elif o.observation == "counts":
            low, high = self._reward_bounds()
            bounds += [(0, o.pulls)] * o.arms + [(min(low, 0) * o.pulls, high * o.pulls)] * o.arms + [(0, 1)]
        elif o.observation == "means":
            bounds += [self._mean_bounds()] * o.arms
        if o.observation not in ("none", "means"):
            bounds += [(-1, 1)] * self._widths()[1]
        low_, high_ = np.array(bounds, np.float32).T
        return gymnasium.spaces.Box(low_, high_, dtype=np.float32)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(self.config.arms)

    @property
    def horizon(self) -> int:
        return min(self.config.pulls, self.config.time_limit or self.config.pulls)

    def allocate(self, n: int) -> State:
        k = self.config.arms
        statistics = k if self.config.observation == "counts" else 1
        weights, context = (max(width, 1) for width in self._widths())
        return self.State(
            np.zeros((n, k)),
            np.full(n, -1, np.int32),
            np.zeros(n, np.float32),
            np.zeros(n, np.int32),
            np.zeros((n, statistics), np.int32),
            np.zeros((n, statistics)),
            np.zeros((n, weights)),
            np.zeros((n, context)),
            np.zeros(n, np.int32),
        )

    def _sequence(self) -> Array:
        """What the adversary wrote: (T, k) rewards, or (T, 2) chances of a reward for the best arm and for all others.

        Without a given sequence, phase n = 0, 1, ... lasts ceil(1.6^n) pulls; the best arm pays 1, the others 1 - gap in
        even phases, and gap and 0 in odd ones (Zimmert & Seldin 2021, section 6, whose losses are 1 minus these).
        """
        o = self.config
        if o.reward != "adversarial":
            return np.zeros((1, 1))
        if o.sequence:
            return np.array(o.sequence)
        rows, phase = np.empty((o.pulls, 2)), 0
        start = 0
        while start < o.pulls:
            end = start + math.ceil(1.6**phase)
            rows[start:end] = (1.0, 1.0 - o.gap) if phase % 2 == 0 else (o.gap, 0.0)
            start, phase = end, phase + 1
        return rows

    def _factor(self) -> Array:
        o = self.config
        if not o.length_scale:
            return np.zeros((1, 1))
        place = np.linspace(0, 1, o.arms)
        kernel = np.exp(-0.5 * ((place[:, None] - place) / o.length_scale) ** 2) + JITTER * np.eye(o.arms)
        factor = np.linalg.cholesky(kernel)
        return np.ascontiguousarray(factor / np.sqrt((factor**2).sum(1, keepdims=True)))  # variance 1, whatever the jitter

    def constants(self) -> Constants:
        o = self.config
        kind = ("bernoulli", "gaussian", "beta").index(o.reward) if o.reward != "adversarial" else BERNOULLI
        c = self.Constants(
            arms=o.arms,
            kind=EXACT if o.sequence else kind,
            dynamics=ADVERSARY
            if o.reward == "adversarial"
            else ("stationary", "drift", "switch", "restless").index(o.dynamics),
            context=("none", "linear", "nonlinear").index(o.context),
            shows=("none", "last", "context", "counts", "means").index(o.observation),
            horizon=o.pulls,
            sd=o.sd,
            concentration=o.concentration,
            drift=o.drift,
            switch=o.switch,
            switch_every=o.switch_every,
            low=o.low,
            high=o.high,
            rise=o.rise,
            stay=1 - o.fall,
            good=o.rise / (o.rise + o.fall),
            features=o.features,
            shared=o.weights == "shared",
            line=o.length_scale > 0,
            spread=o.spread,
            factor=self._factor(),
            sequence=self._sequence(),
            fixed=False,
            task_mean=np.zeros(o.arms),
            task_weights=np.zeros(max(self._widths()[0], 1)),
            task_shift=0,
        )
        if o.fresh:
            return c
        one = self.allocate(1)
        with np.errstate(over="ignore"):
            draw_task(one, 0, c, fresh_streams(np.array([o.task_seed])))
        return c._replace(fixed=True, task_mean=one.mean[0], task_weights=one.weights[0], task_shift=int(one.shift[0]))

    # --- rules

    @rule
    def reset(s: Any, i: int, c: Any, rng: Array) -> None:
        s.arm[i] = -1
        s.reward[i] = 0.0
        s.pulls[i] = 0
        if c.fixed:
            for k in range(c.arms):
                s.mean[i, k] = c.task_mean[k]
            for j in range(c.task_weights.shape[0]):
                s.weights[i, j] = c.task_weights[j]
            s.shift[i] = c.task_shift
        else:
            draw_task(s, i, c, rng)
        if c.shows == COUNTS:
            for k in range(c.arms):
                s.counts[i, k] = 0
                s.total[i, k] = 0.0
        if c.dynamics == ADVERSARY:
            read_sequence(s, i, c)
        if c.context != NO_CONTEXT:
            draw_context(s, i, c, rng)

    @rule
    def step(s: Any, i: int, action: Array, c: Any, rng: Array, reward: Array) -> bool:
        arm = action[0]
        mean = s.mean[i, arm]
        if c.kind == GAUSSIAN:
            reward[0] = mean + c.sd * normal(rng, i)
        elif c.kind == BETA:
            reward[0] = beta_draw(rng, i, mean, c.concentration)
        elif c.kind == EXACT:
            reward[0] = mean
        else:
            reward[0] = 1.0 if unit(rng, i) < mean else 0.0
        s.arm[i] = arm
        s.reward[i] = reward[0]
        s.pulls[i] += 1
        if c.shows == COUNTS:
            s.counts[i, arm] += 1
            s.total[i, arm] += reward[0]

        if c.dynamics == DRIFT:
            for k in range(c.arms):
                m = s.mean[i, k] + c.drift * quick_normal(rng, i)
                while m < 0.0 or m > 1.0:
                    m = -m if m < 0.0 else 2.0 - m
                s.mean[i, k] = m
        elif c.dynamics == SWITCH:
            if c.switch_every > 0:
                due = s.pulls[i] % c.switch_every == 0
            else:
                due = unit(rng, i) < c.switch
            if due:
                draw_task(s, i, c, rng)
        elif c.dynamics == RESTLESS:
            for k in range(c.arms):
                chance = c.stay if s.mean[i, k] == c.high else c.rise
                s.mean[i, k] = c.high if unit(rng, i) < chance else c.low
        elif c.dynamics == ADVERSARY:
            read_sequence(s, i, c)
        if c.context != NO_CONTEXT:
            draw_context(s, i, c, rng)
        return s.pulls[i] >= c.horizon

    @rule
    def observe(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        at = 0
        if c.shows == NOTHING:
            out[0] = 1.0
        elif c.shows == LAST:
            for j in range(c.arms):
                out[j] = 0.0
            if s.arm[i] >= 0:
                out[s.arm[i]] = 1.0
            out[c.arms] = s.reward[i]
            out[c.arms + 1] = s.pulls[i] / c.horizon
            at = c.arms + 2
        elif c.shows == COUNTS:
            for j in range(c.arms):
                out[j] = s.counts[i, j]
                out[c.arms + j] = s.total[i, j]
            out[2 * c.arms] = s.pulls[i] / c.horizon
            at = 2 * c.arms + 1
        elif c.shows == MEANS:
            for j in range(c.arms):
                out[j] = s.mean[i, j]
        if c.context != NO_CONTEXT and c.shows != NOTHING and c.shows != MEANS:
            for j in range(c.features * (c.arms if c.shared else 1)):
                out[at + j] = s.context[i, j]

    # --- what is known exactly

    def _ordinary(self) -> bool:
        """Fresh independent arms that never change, U[0, 1]."""
        o = self.config
        return bool(
            o.fresh
            and o.context == "none"
            and not o.length_scale
            and o.reward != "adversarial"
            and o.dynamics == "stationary"
            and o.observation != "means"
        )

    @property
    def solver(self) -> str:
        o = self.config
        if self._ordinary():
            return "Bayes" if o.reward == "bernoulli" and self.horizon <= bayes.bandit_horizon(o.arms) else "bound"
        if (not o.fresh and (o.context != "none" or o.dynamics == "drift")) or (o.length_scale and o.dynamics == "switch"):
            return ""  # what the best arm pays on average has no closed form there
        if o.observation == "means":
            return "closed form"
        if o.dynamics == "restless" and o.fresh and self._beliefs():
            return "dynamic programming"
        return "closed form" if not o.fresh and o.dynamics == "stationary" else "bound"

    def _beliefs(self) -> bool:
        """Whether a pull shows the state of a restless arm, and beliefs about all arms are few enough to solve."""
        o = self.config
        shown = o.reward in ("bernoulli", "beta") and (o.low, o.high) == (0.0, 1.0)
        return shown and bayes.restless_states(o.arms, self.horizon) <= bayes.RESTLESS_STATES

    def _per_pull(self, s: Any) -> tuple[Array, Array]:
        """Expected mean and expected largest mean of the arms at each pull, before anything is seen; (T,), or (T, N)."""
        o, c, k = self.config, self.constants(), self.config.arms
        each = np.ones(self.horizon)
        if c.dynamics == ADVERSARY:
            now = c.sequence[np.arange(self.horizon) % len(c.sequence)]
            wide = now if o.sequence else np.concatenate((now[:, :1], np.repeat(now[:, 1:], k - 1, 1)), 1)
            return wide.mean(1), wide.max(1)
        if c.context:
            square = o.context == "nonlinear"
            average = 1 / o.features if square else 0.5
            return each * average, each * bayes.sphere_oracle(k, o.features, square)
        if c.dynamics == RESTLESS:
            chance = np.full((self.horizon, k), c.good)
            if c.fixed:
                gone = (1 - o.rise - o.fall) ** np.arange(self.horizon)[:, None]
                chance = c.good + gone * ((c.task_mean == c.high) - c.good)
            none_good = (1 - chance).prod(1)
            return c.low + (c.high - c.low) * chance.mean(1), c.low + (c.high - c.low) * (1 - none_good)
        first_mean, first_best = s.mean.mean(1), s.mean.max(1)  # of the drawn arms, (N,)
        if c.dynamics != SWITCH:
            if c.fixed or c.line:
                return np.outer(each, first_mean), np.outer(each, first_best)
            return each * 0.5, each * bayes.bandit_oracle(k)
        pull, later = np.arange(self.horizon), bayes.bandit_oracle(k)
        same = pull < o.switch_every if o.switch_every else (1 - o.switch) ** pull  # chance that no switch came yet
        if not c.fixed:
            same = 0.0 * pull
        redrawn = (1 - same)[:, None]
        return np.outer(same, first_mean) + 0.5 * redrawn, np.outer(same, first_best) + later * redrawn

    def yardstick(self, s: Any) -> Yardstick | None:
        """Before the arms are drawn, so the same for all environments: an optimum that has to explore, where it is known.

        Else what an agent gets that knows at each pull which arm is best. For arms on a line that is each environment's own,
        because the largest of correlated normals has no closed form.
        """
        how = self.solver
        if not how:
            return None
        o, n = self.config, len(s.arm)
        random, best = (np.broadcast_to(part.sum(0), n).astype(np.float64) for part in self._per_pull(s))
        meaning = "bound: what an agent gets that knows every arm"
        if how == "Bayes":
            best, meaning = np.full(n, bayes.bayes_bandit(o.arms, self.horizon).value), "Bayes-optimal exploration"
        elif how == "dynamic programming":
            best = np.full(n, bayes.restless_bandit(o.arms, self.horizon, o.rise, o.fall))
            meaning = "optimum of an agent that infers the arms' states from its own pulls"
        elif o.observation == "means":
            meaning = "optimum of an agent that sees the arms' means"
        elif how == "closed form":
            meaning = "optimum of an agent that has learnt the one task"
        return Yardstick(random, best, meaning)

    def model(self, s: Any, i: int) -> Model | None:
        """With observation=counts and few pulls of Bernoulli arms: the process of the counts, the unknown means integrated
        out. An arm with a successes in n pulls pays with (a + 1) / (n + 2), however its hidden mean was drawn."""
        o = self.config
        if not (self._ordinary() and o.observation == "counts" and o.reward == "bernoulli"):
            return None
        if bayes.count_states(o.arms, o.pulls) > MODEL_STATES or o.arms * o.pulls > 1000:
            return None
        k, levels = o.arms, [np.zeros((1, 2 * o.arms), np.int64)]
        for _ in range(o.pulls - 1):
            after = (levels[-1][:, None] + np.eye(2 * k, dtype=np.int64)).reshape(-1, 2 * k)
            levels.append(np.unique(after, axis=0))
        rows = np.concatenate(levels)  # (S, 2k): pulls won by each arm, pulls lost
        number = {row.tobytes(): state for state, row in enumerate(rows)}
        won, lost = rows[:, :k], rows[:, k:]
        p = (won + 1) / (won + lost + 2)
        probability = np.stack((p, 1 - p), 2)
        reward = np.broadcast_to([1.0, 0.0], probability.shape).copy()
        done = rows.sum(1) + 1 >= o.pulls
        terminated = np.broadcast_to(done[:, None, None], probability.shape).copy()
        next_state = np.zeros(probability.shape, np.int64)
        for state in np.flatnonzero(~done):
            moved = rows[state] + np.eye(2 * k, dtype=np.int64)
            next_state[state] = np.array([number[row.tobytes()] for row in moved]).reshape(2, k).T
        count, total = won + lost, won.astype(np.float64)
        here = np.concatenate((s.total[i], s.counts[i] - s.total[i])).astype(np.int64)
        fields = {"counts": count.astype(np.int32), "total": total, "pulls": count.sum(1).astype(np.int32)}
        return Model(next_state, probability, reward, terminated, number[here.tobytes()], fields)

    def check_state(self, s: Any) -> str | None:
        o, (low, high) = self.config, self._mean_bounds()
        if outside(s.arm, -1, o.arms - 1) or outside(s.pulls, 0, o.pulls) or outside(s.mean, low, high):
            return "arm, pulls or mean is out of bounds"
        if outside(s.shift, 0, o.arms - 1) or outside(s.counts, 0, o.pulls):
            return "shift or counts are out of bounds"
        if outside(s.weights, -1.001, 1.001) or outside(s.context, -1.001, 1.001) or not np.isfinite(s.total).all():
            return "weights, context or total is out of bounds"
        return None

    def scene(self, s: Any, i: int) -> Scene:
        bars = tuple((f"arm {k}" + (" <" if s.arm[i] == k else ""), float(m)) for k, m in enumerate(s.mean[i]))
        return Scene(np.empty((0, 0), "<U1"), bars=bars, caption=f"pull {s.pulls[i]}, last reward {s.reward[i]:g}")
