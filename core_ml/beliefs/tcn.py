"""Temporal convolution as a belief: looks back a fixed number of steps, all of them at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn

from ...store.arrays import Array
from ..component import ComponentConfig, component
from ..nets.modules import arrays, fresh, put_back
from .protocol import State, cleared, episodes, inputs, newest


class _Layer(nn.Module):
    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.norm, self.mix, self.out = nn.LayerNorm(width), nn.Linear(taps * width, width), nn.Linear(width, width)


class _Net(nn.Module):
    def __init__(self, inputs: int, width: int, layers: int, taps: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(_Layer(width, taps) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def numbered(self) -> Iterator[tuple[int, _Layer]]:
        return enumerate(self.layers)  # type: ignore[arg-type]


@component("belief", "tcn")
class TCN:
    """Belief: causal dilated convolutions in residual blocks (Bai et al. 2018, "An empirical evaluation of generic
    convolutional and recurrent networks", section 3), with the norm before each block. In layer l, with dilation d = taps^l:

    u_t = norm(x_t);  x_t <- x_t + V relu(sum_j W_j u_{t - j d}),  j = 0 .. taps - 1;  u is zero before the episode

    It sees the last `horizon` = taps^layers steps. The state holds what each layer's convolution still needs.
    """

    class Config(ComponentConfig):
        width: int = Field(64, ge=1, description="channels, and numbers in a belief")
        taps: int = Field(2, ge=2, description="steps that one convolution reads; dilation grows by this factor per layer")
        layers: int = Field(5, ge=1, le=16, description="convolutions; the belief sees taps ** layers steps")

    def __init__(self, config: Config, code_size: int, action_size: int, seed: int) -> None:
        self.config, self.sizes = config, (code_size, action_size)
        self.size, self.horizon = config.width, config.taps**config.layers
        self.dilations = [config.taps**layer for layer in range(config.layers)]
        self.net = fresh(lambda: _Net(code_size + action_size, config.width, config.layers, config.taps), seed)

    def initial(self, n: int) -> State:
        back = self.config.taps - 1
        return {f"layer{k}": torch.zeros(n, back * d, self.size) for k, d in enumerate(self.dilations)}

    def observe(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        belief, state = self.sequence(code.unsqueeze(1), action.unsqueeze(1), is_first.unsqueeze(1), state)
        return belief.squeeze(1), state

    def sequence(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        steps, longest = is_first.shape[1], (self.config.taps - 1) * self.dilations[-1]
        state, episode, new = cleared(state, is_first[:, 0]), episodes(is_first, longest), {}
        x = self.net.input(inputs(code, action, is_first, self.sizes))
        for k, layer in self.net.numbered():
            d, past = self.dilations[k], state[f"layer{k}"].shape[1]
            u = torch.cat([state[f"layer{k}"], layer.norm(x)], 1)  # (B, past + T, width)
            own = None if episode is None else episode[:, longest - past :]
            taps = []
            for start in range(past, -1, -d):  # u_t, u_{t - d}, ...
                tap = u[:, start : start + steps]
                if own is not None:
                    tap = tap.masked_fill((own[:, start : start + steps] != own[:, past:]).unsqueeze(-1), 0.0)
                taps.append(tap)
            x = x + layer.out(layer.mix(torch.cat(taps, -1)).relu())
            new[f"layer{k}"] = newest(u, own, past)
        return self.net.norm(x), new

    def state_dict(self) -> dict[str, Array]:
        return arrays(self.net)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        put_back(self.net, state, "belief tcn")
