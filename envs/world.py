"""What a world is: rules for one environment over flat arrays, and the batched interface that every agent sees.

A world file defines a `World` subclass with a `Config`, a `State`, three rules and the spaces. Rules are plain
functions in numba's subset of Python; `engine.py` runs them over N environments. Nothing here imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import gymnasium
from pydantic import BaseModel, ConfigDict, Field

from ..store.arrays import Array as Array  # here too, because every world file needs it

F = TypeVar("F", bound=Callable[..., Any])


def helper(function: F) -> F:
    """Mark a plain function that rules may call; it is compiled together with them and stays callable from Python."""
    function.__gumdrop_helper__ = True  # type: ignore[attr-defined]
    return function


def rule(function: F) -> F:
    """Mark a method of a `World` as a rule: a function without self that the engine compiles."""
    function.__gumdrop_rule__ = True  # type: ignore[attr-defined]
    return staticmethod(function)  # type: ignore[return-value]


MOST_STEPS = 2**31 - 1  # that a time limit may allow


class WorldConfig(BaseModel):
    """Options that every world has. Subclass it; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    time_limit: int = Field(100, ge=0, le=MOST_STEPS, description="steps until an episode is truncated; 0 means never")


class Entity(NamedTuple):
    """Something that stands on a scene: row, column, kind (a name `render.py` knows how to draw) and a number.

    A whole number is the middle of its row or column; between two there is anything else.
    """

    row: float
    column: float
    kind: str  # agent | candy | goal
    index: int = 0  # type: ignore[assignment]  # which agent, which kind of candy


class Scene(NamedTuple):
    """What an environment looks like, for `render.py`: rules files describe, they never draw."""

    cells: Array  # (H, W) of single characters: '#' wall, '.' floor, 'G' goal, 'H' hole, 'S' start
    entities: tuple[Entity, ...] = ()
    bars: tuple[tuple[str, float], ...] = ()  # (label, height in 0..1), drawn as a bar chart beside or instead of cells
    caption: str = ""


class Model(NamedTuple):
    """Exact transition model of one environment's episode: S states, A actions, up to K outcomes each.

    State s of the model is the environment whose state arrays hold ``fields[name][s]``; all other arrays stay as they are.
    Outcomes with probability 0 pad the rows. The time limit is not part of the model: solvers take it as horizon.
    """

    next_state: Array  # int64 (S, A, K)
    probability: Array  # float64 (S, A, K), sums to 1 over K
    reward: Array  # float64 (S, A, K), expected reward of that outcome
    terminated: Array  # bool (S, A, K)
    start: int  # the state that the environment is in now
    fields: dict[str, Array]  # name -> (S, ...), what to write into State.<name>[i]
    legal: Array | None = None  # bool (S, A), at least one a state: what agents may choose from; None: all actions


class Yardstick(NamedTuple):
    """The two lines between which a learning curve is drawn, per environment, for a whole episode from the current state."""

    random: Array  # float64 (N,): exact expected return of uniformly random actions, the mean over agents
    optimal: Array  # float64 (N,)
    meaning: str  # e.g. "optimum of an agent that sees everything"
    player: int = -1  # whose return: -1 the mean over agents; in a zero-sum game, where that is 0, agent `player`'s


class Game(NamedTuple):
    """Exact transition model of an episode of two players: player 0 has A actions, player 1 has B; else as `Model`."""

    next_state: Array  # int64 (S, A, B, K)
    probability: Array  # float64 (S, A, B, K), sums to 1 over K
    reward: Array  # float64 (S, A, B, K, 2): expected rewards of both players; zero-sum where they cancel out
    terminated: Array  # bool (S, A, B, K)
    start: int
    fields: dict[str, Array]


class Preset(NamedTuple):
    """A named setting of a world: it has an id of its own, and options that differ from the world's defaults."""

    about: str  # one line: what it is, and whose
    options: dict[str, Any]


class World:
    """Rules for one environment. Subclass, then decorate with `@world("name")` from `registry.py`.

    A subclass defines the nested classes `Config` and `State`, the rules `reset`, `step` and `observe`,
    `allocate` and the two spaces. Constructors only store the configuration.
    """

    name: ClassVar[str] = ""  # set by @world
    presets: ClassVar[dict[str, Preset]] = {}  # id -> a named setting, made and listed like a world
    Config: ClassVar[type[WorldConfig]] = WorldConfig
    State: ClassVar[type[Any]]  # a NamedTuple of arrays
    reset: ClassVar[Callable[..., None]]  # (s, i, c, rng): begin an episode in environment i
    step: ClassVar[Callable[..., bool]]  # (s, i, action, c, rng, reward) -> terminated; reward[k] starts at 0
    observe: ClassVar[Callable[..., None]]  # (s, i, k, c, out): agent k's observation, flat, into out

    legal: ClassVar[Callable[..., None] | None] = None  # optional (s, i, k, c, out): agent k's mask, see `masked`

    def __init__(self, config: WorldConfig) -> None:
        self.config: Any = config

    @property
    def masked(self) -> bool:
        """Whether the rule `legal` is in force: it writes bool (actions,), true where an action is legal, at least one.

        For Discrete actions. It is a function of the state, like `observe`. `step` must still be able to take any action:
        who ignores the mask may send one. Override it where an option switches the rule on.
        """
        return self.legal is not None

    @property
    def num_agents(self) -> int:
        return 1

    @property
    def observation_space(self) -> gymnasium.spaces.Space[Any]:
        """Space of ONE agent's observation: a Box; the rules fill it flat, in C order."""
        raise NotImplementedError(f"world {self.name}: define observation_space")

    @property
    def action_space(self) -> gymnasium.spaces.Space[Any]:
        """Space of ONE agent's action: Discrete or a float32 Box."""
        raise NotImplementedError(f"world {self.name}: define action_space")

    def allocate(self, n: int) -> Any:
        """State arrays for `n` environments, first axis the environment."""
        raise NotImplementedError(f"world {self.name}: define allocate(n)")

    def constants(self) -> Any:
        """A NamedTuple of numbers and arrays, the same for all environments: what rules receive as `c`.

        The fields named in `static` are compiled into the kernel (array sizes, loop bounds of the hot path).
        """
        return NoConstants(0)

    static: ClassVar[tuple[str, ...]] = ()

    @property
    def horizon(self) -> int:
        """Most steps an episode can have, 0 for no bound: what exact solvers plan for."""
        return int(self.config.time_limit)

    @property
    def solver(self) -> str:
        """What solves this configuration exactly, in a word or two for tables; "" where nothing does. Cheap to ask."""
        return "model" if type(self).model is not World.model or type(self).yardstick is not World.yardstick else ""

    def check_state(self, s: Any) -> str | None:
        """What is wrong with a state that came from a file, else None. Everything that a rule uses as an index belongs here."""
        return None

    def scene(self, s: Any, i: int) -> Scene | None:
        """What environment `i` looks like; None: `render.py` shows the observation as text."""
        return None

    def sight(self, obs: Array) -> Scene | None:
        """What one observation shows, a world's own or one that a model imagined; None: it is drawn as numbers."""
        return None

    def model(self, s: Any, i: int) -> Model | None:
        """Exact transition model of the episode that environment `i` is in, or None where the state space is too large."""
        return None

    def game(self, s: Any, i: int) -> Game | None:
        """Exact model of environment `i`'s episode for two players, where there are two and the state space is small."""
        return None

    def yardstick(self, s: Any) -> Yardstick | None:
        """Random and optimal return of each environment's episode; None: `solve.yardstick` derives it from `model`."""
        return None


class NoConstants(NamedTuple):
    nothing: int


def outside(values: Array, low: float, high: float) -> bool:
    """Whether an array has an entry below `low` or above `high`, or one that is not a number."""
    return bool(values.size) and not bool((values >= low).all() and (values <= high).all())
