"""An encoder in its slot: what a policy sees is a code, which the encoder learns beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...core_ml.observations import Observation
from ...store.arrays import Array
from ..protocol import PartRow, Rollout, Spaces
from .spec import EncoderPart, label, resolve


class Encoding:
    """Observations as codes, float32 (B, size). The policy's gradient does not reach the encoder.

    It learns from the observations of each rollout, after the policy has, so that codes mean the same when a rollout is
    collected and when it is learned from; and stays as it is from `freeze_after` of the training on, so that the policy reads
    codes that no longer move.
    """

    def __init__(self, part: EncoderPart, spaces: Spaces, seed: int) -> None:
        self.part = part
        space = spaces.observation
        if space.shape is None or space.dtype is None:
            raise ValueError(f"encoder {part.name}: observations {space} are no arrays")
        self.observation = Observation.of(space.shape, space.dtype, float(np.max(getattr(space, "high", np.inf))))
        found, config = resolve("encoder", part)
        self.component: Any = found.cls(config, self.observation, seed)
        self.size = int(self.component.size)

    def codes(self, obs: Array) -> Array:
        """(..., *observation) -> float32 (B, size)."""
        with torch.no_grad():
            found: Array = self.component.encode(self._rows(obs)).numpy()
        return found

    def learn(self, batch: Rollout, progress: float, rng: np.random.Generator) -> dict[str, float]:
        """Steps of learning from a rollout, each from observations drawn by `rng`. Returns the last one's metrics."""
        if self.part.untrained or progress >= self.part.freeze_after:
            return {}
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        rows = batch.obs.reshape(-1, *self.observation.shape)
        metrics: dict[str, float] = {}
        for _ in range(self.part.updates):
            chosen = rng.integers(len(rows), size=min(self.part.batch, len(rows)))
            metrics = self.component.update(self._rows(rows[chosen]), generator)
        return {f"encoder/{name}": value for name, value in metrics.items()}

    def outline(self) -> PartRow:
        """What it is, for an outline of the agent."""
        memory = getattr(getattr(self.component, "coder", None), "memory", None)
        return PartRow("encoder", label(self.part), f"float32 ({self.size},)", 0 if memory is None else memory.flat.size)

    def _rows(self, obs: Array) -> torch.Tensor:
        rows = obs.reshape(-1, *self.observation.shape)
        integers = np.issubdtype(rows.dtype, np.integer)
        kind = np.uint8 if self.observation.kind != "vector" else rows.dtype if integers else np.float32
        return torch.from_numpy(np.ascontiguousarray(rows.astype(kind, copy=False)))

    def state(self) -> dict[str, Array]:
        return {f"encoder.{name}": np.array(array) for name, array in self.component.state_dict().items()}

    def load(self, state: dict[str, Array]) -> None:
        own = {name.removeprefix("encoder."): array for name, array in state.items() if name.startswith("encoder.")}
        self.component.load_state_dict(own)
