"""Recurrent beliefs: Elman network, LSTM, GRU."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ...store.arrays import Array
from ..component import ComponentConfig, component
from ..nets.modules import arrays, fresh, put_back
from ..optim.parameters import orthogonal
from .protocol import State, cleared, inputs

CELLS = {"rnn": (nn.RNN, 1), "lstm": (nn.LSTM, 4), "gru": (nn.GRU, 3)}  # and gates, in torch's order


@component("belief", "gru", cell="gru")
@component("belief", "lstm", cell="lstm")
@component("belief", "rnn", cell="rnn")
class Recurrent:
    """Belief: the hidden state h of the last layer, with x_t the code and the previous action.

    rnn (Elman 1990):   h_t = tanh(W x_t + U h_{t-1} + b)
    lstm (Hochreiter & Schmidhuber 1997; Gers et al. 2000):
        i, f, o = sigma(W x_t + U h_{t-1} + b);  g = tanh(W x_t + U h_{t-1} + b);  c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)
    gru (Cho et al. 2014, with the reset gate behind the product):
        r, z = sigma(W x_t + U h_{t-1} + b);  n = tanh(W x_t + b + r (U h_{t-1} + b'));  h_t = (1 - z) n + z h_{t-1}
    """

    class Config(ComponentConfig):
        cell: Literal["rnn", "lstm", "gru"] = Field("gru", description="Elman network, LSTM or GRU")
        hidden: int = Field(64, ge=1, description="units in a layer, and numbers in a belief")
        layers: int = Field(1, ge=1, description="layers, each reading the one before")
        span: int | None = Field(
            None, ge=3, description="steps to remember: gates open for 1 to span steps at first; None: for about 4"
        )

        @model_validator(mode="after")
        def _gates(self) -> Self:
            if self.cell == "rnn" and self.span:
                raise ValueError("cell 'rnn' has no gates that span could set: take 'gru' or 'lstm'")
            return self

    def __init__(self, config: Config, code_size: int, action_size: int, seed: int) -> None:
        self.config, self.sizes = config, (code_size, action_size)
        self.size = config.hidden
        self.parts = ("h", "c") if config.cell == "lstm" else ("h",)
        kind, gates = CELLS[config.cell]
        self.net: nn.RNNBase = fresh(
            lambda: kind(code_size + action_size, config.hidden, config.layers, batch_first=True), seed
        )
        rng = np.random.default_rng([seed, 1])
        with torch.no_grad():
            for name, p in self.net.named_parameters():
                if p.ndim == 2:  # each gate's matrix is orthogonal, not all of them on top of each other
                    p.copy_(torch.from_numpy(np.concatenate([orthogonal(tuple(w.shape), 1.0, rng) for w in p.chunk(gates)])))
                elif name.startswith("bias_ih") and config.cell != "rnn":
                    self._open(p, rng)

    def _open(self, bias: Tensor, rng: np.random.Generator) -> None:
        """Set the bias of the gate that keeps: to log u, u uniform in [1, span - 1], which keeps for about u steps; with the
        input gate's at -log u (Tallec & Ollivier 2018, "Can recurrent neural networks warp time?"). Without a span: to 1
        (Jozefowicz et al. 2015)."""
        h, span = self.config.hidden, self.config.span
        keep = bias[h : 2 * h]  # f of the LSTM, z of the GRU
        if span is None:
            keep.fill_(1.0)
        else:
            keep.copy_(torch.from_numpy(np.log(rng.uniform(1, span - 1, h))))
            if self.config.cell == "lstm":
                bias[:h] = -keep

    def initial(self, n: int) -> State:
        return {name: torch.zeros(n, self.config.layers, self.config.hidden) for name in self.parts}

    def observe(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        x, state = inputs(code, action, is_first, self.sizes), cleared(state, is_first)
        x, layers = self._step(x, self._layers(state))
        return x, self._state(layers)

    def sequence(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        """One pass of torch's own loop; step by step where episodes begin within the sequence.

        (Episodes as rows of their own, packed, would be a third slower: the backward pass of torch's packed loop fills a
        gradient of the whole sequence's size at each step.)
        """
        x, state = inputs(code, action, is_first, self.sizes), cleared(state, is_first[:, 0])
        begins = is_first.any(0).tolist()
        if not any(begins[1:]):
            before = [state[name].transpose(0, 1).contiguous() for name in self.parts]
            out, after = self.net(x, tuple(before) if len(before) > 1 else before[0])
            parts = after if len(before) > 1 else (after,)
            return out, {name: part.transpose(0, 1) for name, part in zip(self.parts, parts, strict=True)}
        layers, outs, keep = self._layers(state), [], (~is_first).float().unsqueeze(2)
        for t, x_t in enumerate(x.unbind(1)):
            if t and begins[t]:
                layers = [[part * keep[:, t] for part in layer] for layer in layers]
            h, layers = self._step(x_t, layers)
            outs.append(h)
        return torch.stack(outs, 1), self._state(layers)

    def _step(self, x: Tensor, layers: list[list[Tensor]]) -> tuple[Tensor, list[list[Tensor]]]:
        """x (B, D + K) and the parts (B, hidden) of each layer's state -> h of the last layer, new parts."""
        new = []
        for weights, before in zip(self.net.all_weights, layers, strict=True):
            if self.config.cell == "lstm":
                after = list(torch.lstm_cell(x, before, *weights))
            else:
                after = [(torch.gru_cell if self.config.cell == "gru" else torch.rnn_tanh_cell)(x, before[0], *weights)]
            x = after[0]
            new.append(after)
        return x, new

    def _layers(self, state: State) -> list[list[Tensor]]:
        return [[state[name][:, layer] for name in self.parts] for layer in range(self.config.layers)]

    def _state(self, layers: list[list[Tensor]]) -> State:
        return {name: torch.stack([layer[k] for layer in layers], 1) for k, name in enumerate(self.parts)}

    def state_dict(self) -> dict[str, Array]:
        return arrays(self.net)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        put_back(self.net, state, f"belief {self.config.cell}")
