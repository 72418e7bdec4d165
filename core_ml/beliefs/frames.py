"""The last few codes side by side: the shortest memory, and with one frame none at all."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from ...store.arrays import Array, check_arrays
from ..component import ComponentConfig, component
from .protocol import State, cleared, episodes, inputs, newest


@component("belief", "frames")
class FrameStack:
    """Belief: the last `frames` codes, oldest first, zeros for steps before the episode (as in Mnih et al. 2015, but that
    its first frame is not repeated: so the belief shows how young the episode is)."""

    class Config(ComponentConfig):
        frames: int = Field(4, ge=1, description="codes in a belief; 1: no memory")
        actions: bool = Field(False, description="the action before each code, too")

    def __init__(self, config: Config, code_size: int, action_size: int, seed: int = 0) -> None:
        self.config, self.sizes = config, (code_size, action_size)
        self.width = code_size + (action_size if config.actions else 0)
        self.size = config.frames * self.width
        self.net: nn.Module = nn.Identity()

    def initial(self, n: int) -> State:
        return {"frames": torch.zeros(n, self.config.frames - 1, self.width)}

    def observe(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        row = inputs(code, action, is_first, self.sizes)[:, : self.width]
        frames = torch.cat([cleared(state, is_first)["frames"], row.unsqueeze(1)], 1)  # (B, frames, width)
        return frames.flatten(1), {"frames": frames[:, 1:]}

    def sequence(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        k = self.config.frames
        rows = inputs(code, action, is_first, self.sizes)[..., : self.width]
        rows, episode = torch.cat([cleared(state, is_first[:, 0])["frames"], rows], 1), episodes(is_first, k - 1)
        frames = rows.unfold(1, k, 1).transpose(2, 3)  # (B, T, k, width)
        if episode is not None:
            over = episode.unfold(1, k, 1) != episode[:, k - 1 :, None]  # frames of episodes before the step's own
            frames = frames.masked_fill(over.unsqueeze(-1), 0.0)
        return frames.flatten(2), {"frames": newest(rows, episode, k - 1)}

    def state_dict(self) -> dict[str, Array]:
        return {}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, {}, "frame stack")
