"""Curiosity in features that know what actions do (Pathak et al. 2017, "Curiosity-driven exploration by self-supervised
prediction", arXiv:1705.05363): the intrinsic curiosity module."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from ...store.arrays import Array, check_arrays
from ..component import ComponentConfig, component
from ..maths.normalise import RunningNormaliser
from ..nets.layers import mlp
from ..observations import BonusInputs
from ..optim.adam import FlatAdam
from ..optim.parallel import keep_memory, one_thread_each
from ..optim.parameters import Parameters


@component("bonus", "icm")
class ICM:
    """Bonus for steps whose outcome a forward model did not foresee, in features phi that tell actions apart.

        inverse  a' = g(phi(s_t), phi(s_{t+1})),  trained to be a_t          (eq. 2, 3)
        forward  p  = f(phi(s_t), a_t),           trained to be phi(s_{t+1}) (eq. 4, 5)
        bonus    |p - phi(s_{t+1})|^2 / size                                 (eq. 6, eta = 2 / size)

    Features learn from the inverse model alone (as in Burda et al. 2019, arXiv:1808.04355): the forward model's error does not
    reach them, which would make all features alike. With `novelty=count` there is no forward model; the bonus is
    1 / sqrt(n), n how often the code of phi(s_{t+1}) has come up, a code of `bits` signs of random projections (Tang et al.
    2017, "#Exploration", arXiv:1611.04717).

    The networks read observations standardised by all that was learned from, cut at +-`clip`; the bonus is divided by the root
    mean square of all bonuses so far. A step that terminated showed no outcome: bonus 0, and nothing to learn.

    Never updated, the bonus is the error of a random model in random features; with counts 1 everywhere.
    """

    class Config(ComponentConfig):
        size: int = Field(32, ge=1, le=4096, description="numbers in a feature")
        hidden: tuple[int, ...] = Field((128,), description="full layers of the features, and of both models")
        novelty: Literal["error", "count"] = Field("error", description="of the forward model; or of the feature's code")
        bits: int = Field(16, ge=1, le=24, description="of a code that is counted")
        learning_rate: float = Field(1e-3, gt=0, le=10, description="of Adam")
        forward_share: float = Field(0.2, gt=0, lt=1, description="of the forward model in the loss (the paper's beta)")
        batch: int = Field(256, ge=1, le=1_000_000, description="steps of the world in a step of Adam")
        update_epochs: int = Field(1, ge=1, le=100, description="passes over what an update is given")
        clip: float = Field(5.0, gt=0, le=100, description="of standardised numbers")
        normalise: bool = Field(True, description="divide the bonus by its root mean square so far")
        grid_input: Literal["one-hot", "scaled"] = Field(
            "one-hot", description="a grid as planes of 0 and 1, or one number a cell"
        )

    def __init__(self, config: Config, facts: BonusInputs, seed: int) -> None:
        keep_memory()
        self.config, self.observation, self.actions, self.discrete = config, facts.observation, facts.actions, facts.discrete
        self.one_hot = config.grid_input == "one-hot"
        planes, height, width = self.observation.planes(self.one_hot)
        inputs, size, last = planes * height * width, config.size, [*config.hidden]

        def net(start: int, end: int) -> nn.Sequential:
            sizes = [start, *last]
            return nn.Sequential(*mlp(sizes, "relu"), nn.Linear(sizes[-1], end))

        with torch.device("meta"):  # no draws from torch's global generator
            model = {"features": net(inputs, size), "inverse_model": net(2 * size, self.actions)}
            if config.novelty == "error":
                model["forward_model"] = net(size + self.actions, size)
        self.model = nn.ModuleDict(model).to_empty(device="cpu")
        rng = np.random.default_rng(seed)
        self.parameters = Parameters({name: tuple(p.shape) for name, p in self.model.named_parameters()})
        self.parameters.initialise(rng)
        self.optimiser = FlatAdam(self.model, parameters=self.parameters)
        self.normaliser = RunningNormaliser(inputs)
        self.scale: Array | None = None
        self.count, self.square = np.zeros(()), np.zeros(())  # bonuses so far, and the sum of their squares
        counting = config.novelty == "count"
        self.projection = rng.standard_normal((size, config.bits if counting else 0)).astype(np.float32)
        self.visits = np.zeros(2**config.bits if counting else 0, np.int64)  # by code

    def bonus(self, obs: Array, action: Array, next_obs: Array, terminated: Array) -> Array:
        """obs, next_obs (..., *shape), action (...) or (..., D), terminated bool (...) -> float32 (...), at least 0."""
        paid, on = np.zeros(terminated.shape, np.float32), ~terminated
        if on.any():
            paid[on] = self._novelty(obs[on], action[on], next_obs[on])
        if self.config.normalise and self.count and self.square:
            paid /= np.sqrt(self.square / self.count).astype(np.float32)
        return paid

    def update(self, obs: Array, action: Array, next_obs: Array, terminated: Array) -> dict[str, float]:
        """Learn from steps, in the order of rows: minibatch k of m has rows k, k + m, k + 2m ... Arrays as for `bonus`.

        Metrics: losses before the update, how often the inverse model was right, of numbers its squared error.
        """
        on = ~terminated
        if not on.any():
            return {}
        obs, action, next_obs = obs[on], action[on], next_obs[on]
        paid = self._novelty(obs, action, next_obs).astype(np.float64)
        self.count += paid.size
        self.square += np.square(paid).sum()
        self.normaliser.update(np.concatenate([self._numbers(obs).numpy(), self._numbers(next_obs).numpy()]))
        self._measure()
        rows, next_rows, acted = self._rows(obs), self._rows(next_obs), torch.from_numpy(np.ascontiguousarray(action))
        parts, o = -(-len(rows) // self.config.batch), self.config
        means = np.zeros(3)
        for _ in range(o.update_epochs):
            for k in range(parts):
                inverse, forward, right = self.losses(rows[k::parts], acted[k::parts], next_rows[k::parts])
                self.optimiser.zero_grad()
                ((1 - o.forward_share) * inverse + o.forward_share * forward).backward()
                self.optimiser.step(o.learning_rate, 0.0)
                means += inverse.item(), forward.item(), right
        if len(self.visits):  # by the features as they are now
            np.add.at(self.visits, self._codes(next_rows), 1)
        inverse_loss, forward_loss, accuracy = (means / (parts * o.update_epochs)).tolist()
        metrics = {"inverse_loss": inverse_loss, "scale": float(np.sqrt(self.square / self.count))}
        if len(self.visits):
            metrics["codes"] = float((self.visits > 0).sum())
        else:
            metrics["forward_loss"] = forward_loss
        return metrics | ({"accuracy": accuracy} if self.discrete else {})

    def losses(self, rows: Tensor, action: Tensor, next_rows: Tensor) -> tuple[Tensor, Tensor, float]:
        """Inverse and forward loss of standardised rows (B, D), and the share of actions that the inverse model names."""
        before, after = self.model["features"](rows), self.model["features"](next_rows)
        said = self.model["inverse_model"](torch.cat([before, after], 1))
        if self.discrete:
            inverse, right = cross_entropy(said, action), float((said.argmax(1) == action).float().mean())
        else:
            inverse, right = (said - action.reshape(said.shape)).square().mean(), 0.0
        if len(self.visits):
            return inverse, inverse.new_zeros(()), right
        return inverse, self._surprise(before.detach(), action, after.detach()).mean(), right

    def _surprise(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Mean squared error of the forward model, (B,)."""
        what = one_hot(action, self.actions).float() if self.discrete else action.reshape(len(before), -1).float()
        foreseen: Tensor = self.model["forward_model"](torch.cat([before, what], 1))
        return (foreseen - after).square().mean(1)

    @torch.no_grad()
    def _novelty(self, obs: Array, action: Array, next_obs: Array) -> Array:
        """Bonuses (B,) before they are normalised, float32."""
        next_rows = self._rows(next_obs)
        if len(self.visits):
            return (1 / np.sqrt(np.maximum(self.visits[self._codes(next_rows)], 1))).astype(np.float32)
        before, after = self.model["features"](self._rows(obs)), self.model["features"](next_rows)
        found: Array = self._surprise(before, torch.from_numpy(np.ascontiguousarray(action)), after).numpy()
        return found

    @torch.no_grad()
    def _codes(self, rows: Tensor) -> Array:
        """Standardised rows (B, D) -> int64 (B,): the signs of the projected features as a binary number."""
        signs = (self.model["features"](rows) @ torch.from_numpy(self.projection)).numpy() > 0
        codes: Array = signs @ (1 << np.arange(signs.shape[1], dtype=np.int64))
        return codes

    def _numbers(self, obs: Array) -> Tensor:
        """(B, *shape) -> float32 (B, D), before they are standardised."""
        one_thread_each()
        kind = np.float32 if self.observation.kind == "vector" else np.uint8
        return self.observation.rows(torch.from_numpy(np.ascontiguousarray(obs, kind)), self.one_hot)

    def _rows(self, obs: Array) -> Tensor:
        rows = self._numbers(obs)
        if self.scale is not None:
            rows = (rows - torch.from_numpy(self.scale[0])) * torch.from_numpy(self.scale[1])
        return rows.clamp(-self.config.clip, self.config.clip)

    def _measure(self) -> None:
        self.scale = self.normaliser.scale()

    def _state(self) -> dict[str, Array]:
        state = self.parameters.state() | {f"normaliser.{name}": array for name, array in self.normaliser.state().items()}
        return state | {
            "bonuses.count": self.count,
            "bonuses.square": self.square,
            "projection": self.projection,
            "visits": self.visits,
        }

    def state_dict(self) -> dict[str, Array]:
        """Networks, optimiser, statistics and counts; copies."""
        return {name: array.copy() for name, array in self._state().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "reward icm")
        self.parameters.load(state)
        self.normaliser.load({name.removeprefix("normaliser."): array for name, array in state.items()})
        self.count[...], self.square[...] = state["bonuses.count"], state["bonuses.square"]
        self.projection[...], self.visits[...] = state["projection"], state["visits"]
        self._measure()
