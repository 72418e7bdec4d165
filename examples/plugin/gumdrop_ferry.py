"""Wolf, goat and cabbage: a world for gumdrop. A state is a number; its bits are the banks of boat, wolf, goat, cabbage."""

from collections import namedtuple

import numpy as np
from gymnasium.spaces import Box, Discrete
from pydantic import Field

from gumdrop.envs.registry import world
from gumdrop.envs.rng import chance
from gumdrop.envs.world import Array, Entity, Model, Scene, World, WorldConfig, rule

BANKS = np.array([[x >> 3, x >> 2 & 1, x >> 1 & 1, x & 1] for x in range(16)])
TO = np.array([[[x ^ (m if x & m in (0, m) else 8), x] for m in (8, 12, 10, 9)] for x in range(16)])  # last: 0 over, 1 back
REWARD = np.array([-1 if g != b and g in (w, c) else int(b + w + g + c == 4) for b, w, g, c in BANKS])


@world("ferry")
class Ferry(World):
    """Row wolf, goat, cabbage over, one at a time. Observation: banks, float32 (4,). Reward: 1 all over, -1 one eaten."""

    class Config(WorldConfig):
        time_limit: int = Field(30, ge=0, description="steps until an episode is truncated, unseen; 0 means never")
        wind: float = Field(0.0, ge=0, le=1, description="probability that the boat turns back")

    State, Constants = namedtuple("State", "at"), namedtuple("Constants", "wind")  # int64 (N,); float
    observation_space, action_space = Box(0, 1, (4,), np.float32), Discrete(4)
    action_names = ("alone", "wolf", "goat", "cabbage")

    def allocate(self, n: int) -> State:
        return self.State(np.zeros(n, np.int64))

    def constants(self) -> Constants:
        return self.Constants(self.config.wind)

    @rule
    def reset(s: State, i: int, c: Constants, rng: Array) -> None:
        s.at[i] = 0

    @rule
    def step(s: State, i: int, action: Array, c: Constants, rng: Array, reward: Array) -> bool:
        s.at[i] = TO[s.at[i], action[0], 1 if chance(rng, i, c.wind) else 0]
        reward[0] = REWARD[s.at[i]]
        return REWARD[s.at[i]] != 0

    @rule
    def observe(s: State, i: int, k: int, c: Constants, out: Array) -> None:
        for j in range(4):
            out[j] = BANKS[s.at[i], j]

    def scene(self, s: State, i: int) -> Scene:
        kinds = ("agent", "wolf", "goat", "cabbage")  # a kind without a picture of its own is drawn as its first letter
        return Scene(np.array([list(".HH.")] * 4), tuple(Entity(k, 3 * int(b), kinds[k]) for k, b in enumerate(BANKS[s.at[i]])))

    def model(self, s: State, i: int) -> Model:
        chances = np.broadcast_to((1 - self.config.wind, self.config.wind), TO.shape)
        return Model(TO, chances, REWARD[TO] * 1.0, REWARD[TO] != 0, int(s.at[i]), {"at": np.arange(16)})

    def check_state(self, s: State) -> str | None:
        return None if np.isin(s.at, range(16)).all() else "ferry: a state is a number from 0 to 15"
