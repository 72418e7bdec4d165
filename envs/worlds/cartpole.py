"""CartPole: balance a pole on a cart, with the numbers of Gymnasium's CartPole-v1, on the batched engine."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ..registry import world
from ..rng import unit
from ..world import MOST_STEPS, Entity, Scene, World, WorldConfig, helper, outside, rule

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02  # m/s^2, kg, kg, m, N, s
MASS, MOMENT = CART + POLE, POLE * HALF_LENGTH
MOST_X, MOST_ANGLE = 2.4, 12 * 2 * np.pi / 360  # m, rad: beyond them the episode is over
MOST_SPEED = 1000.0  # m/s, rad/s: no episode comes near; Gymnasium's own space has infinity there, and its checker complains
CELLS = 25  # of the picture's track


@helper
def sine(x: float) -> float:
    """sin x by Taylor's series: exact to the last bit or two for |x| < 1/2, and the same on every device."""
    y = x * x
    y = 1.0 - y / 6.0 * (1.0 - y / 20.0 * (1.0 - y / 42.0 * (1.0 - y / 72.0 * (1.0 - y / 110.0 * (1.0 - y / 156.0)))))
    return x * y


@helper
def cosine(x: float) -> float:
    """cos x, as `sine`."""
    y = x * x
    z = 1.0 - y / 56.0 * (1.0 - y / 90.0 * (1.0 - y / 132.0 * (1.0 - y / 182.0)))
    return 1.0 - y / 2.0 * (1.0 - y / 12.0 * (1.0 - y / 30.0 * z))


@world("cartpole")
class CartPole(World):
    """Push a cart left or right so that the pole on it stays up (Barto, Sutton & Anderson 1983; Gymnasium's CartPole-v1).

    Actions: push left, push right. Observation, float32 (4,): the cart's position (m) and velocity, the pole's angle (rad)
    and angular velocity. Reward: 1 a step. The episode is over when the cart leaves the track of 2.4 m to each side, or the
    pole leans by more than 12 degrees. Steps equal Gymnasium's up to rounding; starts are drawn alike, from other numbers.
    """

    class Config(WorldConfig):
        time_limit: int = Field(500, ge=0, le=MOST_STEPS, description="steps until an episode is truncated; 0 means never")

    class State(NamedTuple):
        x: Array  # float64 (N, 4): as observed

    observation_space = gymnasium.spaces.Box(
        np.array([-2 * MOST_X, -MOST_SPEED, -2 * MOST_ANGLE, -MOST_SPEED], np.float32),
        np.array([2 * MOST_X, MOST_SPEED, 2 * MOST_ANGLE, MOST_SPEED], np.float32),
        dtype=np.float32,
    )
    action_space = gymnasium.spaces.Discrete(2)
    action_names = ("push left", "push right")

    def allocate(self, n: int) -> State:
        return self.State(np.zeros((n, 4)))

    @rule
    def reset(s: Any, i: int, c: Any, rng: Array) -> None:
        for j in range(4):
            s.x[i, j] = 0.1 * unit(rng, i) - 0.05

    @rule
    def step(s: Any, i: int, action: Array, c: Any, rng: Array, reward: Array) -> bool:
        x, v, angle, w = s.x[i, 0], s.x[i, 1], s.x[i, 2], s.x[i, 3]
        sin, cos = sine(angle), cosine(angle)
        push = FORCE if action[0] == 1 else -FORCE
        pull = (push + MOMENT * (w * w) * sin) / MASS
        turn = (GRAVITY * sin - cos * pull) / (HALF_LENGTH * (4.0 / 3.0 - POLE * (cos * cos) / MASS))
        x, angle = x + TAU * v, angle + TAU * w  # Euler: places move with the old speeds
        v, w = v + TAU * (pull - MOMENT * turn * cos / MASS), w + TAU * turn
        s.x[i, 0], s.x[i, 1], s.x[i, 2], s.x[i, 3] = x, v, angle, w
        reward[0] = 1.0
        return x < -MOST_X or x > MOST_X or angle < -MOST_ANGLE or angle > MOST_ANGLE

    @rule
    def observe(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        for j in range(4):
            out[j] = s.x[i, j]

    def check_state(self, s: Any) -> str | None:
        wrong = outside(s.x[:, 0], -2 * MOST_X, 2 * MOST_X) or outside(s.x[:, 2], -2 * MOST_ANGLE, 2 * MOST_ANGLE)
        return "position or angle is out of bounds" if wrong or outside(s.x, -MOST_SPEED, MOST_SPEED) else None

    def scene(self, s: Any, i: int) -> Scene:
        x, _, angle, _ = s.x[i].tolist()
        at = (x / MOST_X + 1) * (CELLS - 1) / 2
        lean = np.sin(angle) * 8  # cells: the tip is 8 above the cart
        return Scene(
            np.full((10, CELLS), "."),
            (*(Entity(9 - h / 2, at + lean * h / 16, "pole") for h in range(1, 17)), Entity(9, at, "agent")),
            caption=f"cart {x:+.2f} m, pole {np.degrees(angle):+.1f} degrees",
        )
