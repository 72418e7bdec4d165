"""Random network distillation (Burda et al. 2019, "Exploration by random network distillation", arXiv:1810.12894)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ...store.arrays import Array, check_arrays
from ..component import ComponentConfig, component
from ..maths.normalise import RunningNormaliser
from ..nets.layers import mlp
from ..observations import BonusInputs
from ..optim.adam import FlatAdam
from ..optim.parallel import keep_memory, one_thread_each
from ..optim.parameters import Parameters


@component("bonus", "rnd")
class RND:
    """Bonus for observations unlike those seen before: the squared error of a network that learns to predict a random one.

        i_t = |f'(s_{t+1}) - f(s_{t+1})|^2 / size,  f random and fixed, f' trained on what was seen (section 2.2)

    Both networks read observations standardised number by number by all that was learned from, cut at +-`clip`; the bonus is
    divided by the root mean square of all bonuses so far (section 2.4; the paper divides by the deviation of their discounted
    sums, which needs environments and time; here rows are independent). A step that terminated has bonus 0.

    Never updated, the bonus is the error of two random networks: another number for each observation, whatever was seen.
    """

    class Config(ComponentConfig):
        size: int = Field(32, ge=1, le=4096, description="numbers that are predicted")
        hidden: tuple[int, ...] = Field((128,), description="full layers of both networks")
        learning_rate: float = Field(1e-3, gt=0, le=10, description="of Adam; smaller: novelty lasts longer")
        batch: int = Field(256, ge=1, le=1_000_000, description="observations in a step of Adam")
        update_epochs: int = Field(1, ge=1, le=100, description="passes over what an update is given")
        clip: float = Field(5.0, gt=0, le=100, description="of standardised numbers")
        normalise: bool = Field(True, description="divide the bonus by its root mean square so far")
        grid_input: Literal["one-hot", "scaled"] = Field(
            "one-hot", description="a grid as planes of 0 and 1, or one number a cell"
        )

    def __init__(self, config: Config, facts: BonusInputs, seed: int) -> None:
        keep_memory()
        self.config, self.observation, self.one_hot = config, facts.observation, config.grid_input == "one-hot"
        planes, height, width = self.observation.planes(self.one_hot)
        sizes = [planes * height * width, *config.hidden]

        def net() -> nn.Sequential:
            return nn.Sequential(*mlp(sizes, "relu"), nn.Linear(sizes[-1], config.size))

        with torch.device("meta"):  # no draws from torch's global generator
            models = net(), net()
        self.target, self.predictor = (model.to_empty(device="cpu") for model in models)
        rng = np.random.default_rng(seed)
        shapes = {name: tuple(p.shape) for name, p in self.target.named_parameters()}
        self.target_parameters, self.parameters = Parameters(shapes), Parameters(shapes)
        self.target_parameters.initialise(rng)
        self.parameters.initialise(rng)
        FlatAdam(self.target, parameters=self.target_parameters)  # moves the parameters into one array; never stepped
        self.target.requires_grad_(False)
        self.optimiser = FlatAdam(self.predictor, parameters=self.parameters)
        self.normaliser = RunningNormaliser(sizes[0])
        self.scale: Array | None = None
        self.count, self.square = np.zeros(()), np.zeros(())  # bonuses so far, and the sum of their squares

    def bonus(self, obs: Array, action: Array, next_obs: Array, terminated: Array) -> Array:
        """next_obs (..., *shape), terminated bool (...) -> float32 (...), at least 0; obs and action do not matter."""
        error = np.zeros(terminated.shape, np.float32)
        on = ~terminated
        if on.any():
            error[on] = self._error(next_obs[on])
        if self.config.normalise and self.count and self.square:
            error /= np.sqrt(self.square / self.count).astype(np.float32)
        return error

    def update(self, obs: Array, action: Array, next_obs: Array, terminated: Array) -> dict[str, float]:
        """Learn what was seen, in the order of rows: minibatch k of m has rows k, k + m, k + 2m ... Arrays as for `bonus`."""
        seen = next_obs[~terminated]
        if not len(seen):
            return {}
        error = self._error(seen).astype(np.float64)
        self.count += error.size
        self.square += np.square(error).sum()
        self.normaliser.update(self._numbers(seen).numpy())
        self._measure()
        rows = self._rows(seen)
        with torch.no_grad():
            wanted = self.target(rows)
        parts, norms = -(-len(rows) // self.config.batch), 0.0
        for _ in range(self.config.update_epochs):
            for k in range(parts):
                self.optimiser.zero_grad()
                loss = (self.predictor(rows[k::parts]) - wanted[k::parts]).square().mean()
                loss.backward()
                norms += self.optimiser.step(self.config.learning_rate, 0.0)
        rms = float(np.sqrt(self.square / self.count))
        return {"error": float(error.mean()), "scale": rms, "grad_norm": norms / (parts * self.config.update_epochs)}

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

    @torch.no_grad()
    def _error(self, obs: Array) -> Array:
        """(B, *shape) -> mean squared error of the prediction, float32 (B,)."""
        rows = self._rows(obs)
        error: Array = (self.predictor(rows) - self.target(rows)).square().mean(1).numpy()
        return error

    def _measure(self) -> None:
        self.scale = self.normaliser.scale()

    def _state(self) -> dict[str, Array]:
        state = self.parameters.state() | {f"normaliser.{name}": array for name, array in self.normaliser.state().items()}
        return state | {"target": self.target_parameters.flat, "bonuses.count": self.count, "bonuses.square": self.square}

    def state_dict(self) -> dict[str, Array]:
        """Predictor, optimiser, target and statistics; copies."""
        return {name: array.copy() for name, array in self._state().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "reward rnd")
        self.parameters.load(state)
        self.normaliser.load({name.removeprefix("normaliser."): array for name, array in state.items()})
        self.target_parameters.flat[:] = state["target"]
        self.count[...], self.square[...] = state["bonuses.count"], state["bonuses.square"]
        self._measure()
