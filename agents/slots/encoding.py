"""Slot `encoder` of an agent: the policy reads codes, and the encoder is trained beside the policy."""

from __future__ import annotations

import numpy as np
import torch

from ...core_ml.encoders.protocol import Encoder
from ...store.arrays import Array
from ..protocol import PartRow, Rollout, Spaces
from .spec import EncoderPart, label, observation_of, resolve


class Encoding:
    """Observations as codes, float32 (B, size). The policy's gradient does not reach the encoder.

    The encoder is trained on each rollout after the policy update, so that codes are the same while a rollout is collected and
    while the policy learns from it. After the share `freeze_after` of the training its parameters stay fixed. Raises ValueError
    for observations that are not arrays.
    """

    def __init__(self, part: EncoderPart, spaces: Spaces, seed: int) -> None:
        self.part = part
        self.observation = observation_of(spaces.observation, f"encoder {part.name}")
        found, config = resolve("encoder", part)
        self.component: Encoder = found.cls(config, self.observation, seed)
        self.size = int(self.component.size)  # numbers in a code

    def codes(self, obs: Array) -> Array:
        """(..., *observation) -> float32 (B, size)."""
        with torch.no_grad():
            found: Array = self.component.encode(self.tensor(obs)).numpy()
        return found

    def learn(self, batch: Rollout, progress: float, rng: np.random.Generator) -> dict[str, float]:
        """`updates` training steps, each on `batch` observations of the rollout drawn by `rng`. Returns metrics."""
        if self.part.untrained or progress >= self.part.freeze_after:
            return {}
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        rows = batch.obs.reshape(-1, *self.observation.shape)
        metrics: dict[str, float] = {}
        for _ in range(self.part.updates):
            chosen = rng.integers(len(rows), size=min(self.part.batch, len(rows)))
            metrics = self.component.update(self.tensor(rows[chosen]), generator)
        return {f"encoder/{name}": value for name, value in metrics.items()}

    def outline(self) -> PartRow:
        """Its row in an outline of the agent."""
        return PartRow("encoder", label(self.part), f"float32 ({self.size},)", self.component.num_parameters)

    def tensor(self, obs: Array) -> torch.Tensor:
        """(..., *observation) -> (B, *observation), of the dtype that the encoder reads."""
        rows = obs.reshape(-1, *self.observation.shape)
        integers = np.issubdtype(rows.dtype, np.integer)
        kind = np.uint8 if self.observation.kind != "vector" else rows.dtype if integers else np.float32
        return torch.from_numpy(np.ascontiguousarray(rows.astype(kind, copy=False)))

    def state(self) -> dict[str, Array]:
        return {f"encoder.{name}": np.array(array) for name, array in self.component.state_dict().items()}

    def load(self, state: dict[str, Array]) -> None:
        own = {name.removeprefix("encoder."): array for name, array in state.items() if name.startswith("encoder.")}
        self.component.load_state_dict(own)
