"""A causal transformer as a belief: attends to the last steps of the episode, wherever in the episode they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import pad

from ...store.arrays import Array
from ..component import ComponentConfig, component
from ..nets.modules import arrays, fresh, put_back
from .protocol import State, cleared, episodes, inputs


class _Residual(nn.Module):
    """x + y"""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class _Gate(nn.Module):
    """GTrXL's gate (Parisotto et al. 2020, "Stabilizing transformers for reinforcement learning", section 3.2), y <- relu(y):

    r, z = sigma(W y + U x), with -2 added within z's;  h = tanh(W y + U (r x));  (1 - z) x + z h
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w, self.u, self.reset = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, 2 * width, False),
            nn.Linear(width, width, False),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        (wr, wz, wh), (ur, uz) = self.w(y.relu()).chunk(3, -1), self.u(x).chunk(2, -1)
        r, z = torch.sigmoid(wr + ur), torch.sigmoid(wz + uz - 2.0)  # at first what is remembered hardly counts
        return torch.lerp(x, torch.tanh(wh + self.reset(r * x)), z)


class _Layer(nn.Module):
    def __init__(self, width: int, gate: str, distances: bool) -> None:
        super().__init__()
        self.norm1, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.far = (
            nn.Linear(width, width, bias=False) if distances else None
        )  # keys of distances; checkpoints hold it under this name
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.join1, self.join2 = (_Gate(width) if gate == "gru" else _Residual() for _ in range(2))

    def join(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.join1(x, self.out(attended))
        return self.join2(x, self.down(self.up(self.norm2(x)).relu()))  # type: ignore[no-any-return]


class _Net(nn.Module):
    def __init__(self, inputs: int, width: int, layers: int, gate: str, distances: bool) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(_Layer(width, gate, distances) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def numbered(self) -> Iterator[tuple[int, _Layer]]:
        return enumerate(self.layers)  # type: ignore[arg-type]


@component("belief", "transformer")
class Transformer:
    """Belief: the last layer's output at the newest step. Pre-norm layers; in each head, for queries q, keys k, values v:

    y_t = sum_s softmax_s((q_t . k_s + q_t . R e_{t-s}) / sqrt(d)) v_s,  s = t - window + 1 .. t, within the episode

    e_j are the sines and cosines of distance j (Dai et al. 2019, "Transformer-XL", section 3.3, with u = v: the bias of q).
    R is zero at first, so that attention begins with contents alone. Only distances count: an episode's hundredth step is
    treated as its thousandth. Without `distances` there is no R, which helps what was learned in short episodes to hold in
    long ones (Kazemnejad et al. 2023, "The impact of positional encoding on length generalization in transformers").

    A layer's keys and values are made once and kept for `window` steps, so the belief may know of layers * (window - 1) steps
    back. The state holds them, each at place (step of the episode) mod window, and the age of the episode.
    """

    class Config(ComponentConfig):
        width: int = Field(64, ge=1, description="numbers in a belief")
        heads: int = Field(4, ge=1, description="heads of attention; they share the width")
        layers: int = Field(2, ge=1, description="layers of attention")
        window: int = Field(64, ge=1, description="steps that a layer attends to, the newest among them")
        distances: bool = Field(True, description="how position_scores back a step is counts, too; false: contents alone")
        gate: Literal["residual", "gru"] = Field("residual", description="how a layer joins its input: sum, or gate of GTrXL")

        @model_validator(mode="after")
        def _divisible(self) -> Self:
            if self.width % (2 * self.heads):
                raise ValueError(f"width {self.width} is no even multiple of {self.heads} heads")
            return self

    def __init__(self, config: Config, code_size: int, action_size: int, seed: int) -> None:
        self.config, self.sizes, self.size = config, (code_size, action_size), config.width
        shape = config.width, config.layers, config.gate, config.distances
        self.net = fresh(lambda: _Net(code_size + action_size, *shape), seed)
        with torch.no_grad():
            for _, layer in self.net.numbered():
                if layer.far is not None:
                    layer.far.weight.zero_()
                if config.gate == "residual":  # at first the newest step outweighs what is remembered
                    layer.out.weight.mul_(0.1)
                    layer.down.weight.mul_(0.1)
        angle = torch.arange(config.window).unsqueeze(1) * 1e-4 ** (torch.arange(0, config.width, 2) / config.width)
        self.sinusoids = torch.cat([angle.sin(), angle.cos()], 1)  # e, (window, width)

    def initial(self, n: int) -> State:
        shape = (n, self.config.heads, self.config.window, self.size // self.config.heads)
        kept = {f"{part}{k}": torch.zeros(shape) for k in range(self.config.layers) for part in ("key", "value")}
        return {"age": torch.zeros(n, dtype=torch.int64), **kept}

    def observe(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        if torch.is_grad_enabled():
            belief, state = self.sequence(code.unsqueeze(1), action.unsqueeze(1), is_first.unsqueeze(1), state)
            return belief.squeeze(1), state
        state = {name: part.clone() for name, part in state.items()}
        return self.observe_(code, action, is_first, state), state

    def observe_(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> Tensor:
        """As `observe` for acting: without gradient, and within `state`, which saves copying all keys and values."""
        with torch.no_grad():
            for part in state.values() if is_first.any() else ():
                part[is_first] = 0
            age, window = state["age"], self.config.window
            place = (age % window).view(-1, 1, 1, 1)
            distance = (place.flatten(1) - torch.arange(window)) % window  # (B, window), of each place from the newest step
            hidden = (distance > age.unsqueeze(1))[:, None, None]
            x = self.net.input(inputs(code, action, is_first, self.sizes)).unsqueeze(1)
            for k, layer in self.net.numbered():
                q, *new = self._heads(layer.qkv(layer.norm1(x)))
                keys, values = state[f"key{k}"], state[f"value{k}"]
                for part, row in zip((keys, values), new, strict=True):
                    part.scatter_(2, place.expand_as(row), row)
                position_scores = None
                if layer.far is not None:
                    position_scores = q @ self._position_keys(layer.far)
                    position_scores = position_scores.gather(-1, distance[:, None, None].expand_as(position_scores))
                x = layer.join(x, self._attend(q, keys, values, position_scores, hidden))
            age += 1
            return self.net.norm(x).squeeze(1)  # type: ignore[no-any-return]

    def sequence(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        t, window = is_first.shape[1], self.config.window
        state = cleared(state, is_first[:, 0])
        age = state["age"]
        past = min(window - 1, int(age.max()))  # steps before the sequence that anybody still attends to
        at = torch.arange(-past, t)  # of keys; queries are at 0 .. t - 1
        episode = episodes(is_first, past)  # (B, P + T)
        known = at >= -age.unsqueeze(1)
        distance = torch.arange(t).unsqueeze(1) - at  # (T, P + T)
        hidden = (distance < 0) | (distance >= window) | ~known.unsqueeze(1)  # (B, T, P + T)
        if episode is not None:
            hidden = hidden | (episode[:, past:, None] != episode[:, None])
        # Steps that go into the state: place p holds the newest step of the episode whose number is p modulo the window.
        since = (torch.arange(t) * is_first).amax(1)  # where in the sequence the running episode began, 0 where before it
        old = torch.where(is_first[:, 1:].any(1), 0, age)
        new_age = old + t - since
        back = (new_age.unsqueeze(1) - 1 - torch.arange(window)) % window  # (B, window): steps from the newest
        empty = (back >= new_age.unsqueeze(1))[:, None, :, None]
        source = (past + t - 1 - back).clamp(0)
        before = (age.unsqueeze(1) + torch.arange(-past, 0)) % window  # (B, P): places of the steps before, oldest first
        x, new = self.net.input(inputs(code, action, is_first, self.sizes)), {"age": new_age}
        for k, layer in self.net.numbered():
            q, *rows = self._heads(layer.qkv(layer.norm1(x)))
            for part, row in zip(("key", "value"), rows, strict=True):
                whole = torch.cat([_pick(state[f"{part}{k}"], before), row], 2)  # (B, heads, P + T, d)
                new[f"{part}{k}"] = _pick(whole, source).masked_fill(empty, 0.0)
                rows[part == "value"] = whole
            position_scores = (
                None if layer.far is None else _by_place(q @ self._position_keys(layer.far)[..., : past + t], past)
            )
            x = layer.join(x, self._attend(q, rows[0], rows[1], position_scores, hidden.unsqueeze(1)))
        return self.net.norm(x), new

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, 3 width) -> three of (B, heads, T, d)."""
        q, k, v = qkv.unflatten(-1, (3, self.config.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def _position_keys(self, r: nn.Module) -> Tensor:
        """R e_j of each head, (heads, d, window)."""
        keys: Tensor = r(self.sinusoids)
        heads: Tensor = keys.unflatten(1, (self.config.heads, -1))
        return heads.permute(1, 2, 0)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, position_scores: Tensor | None, hidden: Tensor) -> Tensor:
        """Queries (B, heads, T, d), keys and values (B, heads, S, d), scores of distances (B, heads, T, S) -> (B, T, width);
        `hidden`, what is not seen, spreads to (B, heads, T, S)."""
        content_scores = q @ k.mT
        score = (content_scores if position_scores is None else content_scores + position_scores) / math.sqrt(q.shape[-1])
        y: Tensor = score.masked_fill(hidden, -math.inf).softmax(-1) @ v
        return y.transpose(1, 2).flatten(2)

    def state_dict(self) -> dict[str, Array]:
        return arrays(self.net)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        put_back(self.net, state, "belief transformer")


def _pick(rows: Tensor, index: Tensor) -> Tensor:
    """Rows (B, heads, S, d) at `index` (B, J) -> (B, heads, J, d)."""
    return rows.gather(2, index[:, None, :, None].expand(-1, rows.shape[1], -1, rows.shape[3]))


def _by_place(position_scores: Tensor, past: int) -> Tensor:
    """Scores by distance (B, heads, T, J), J <= `past` + T, as scores by key (B, heads, T, past + T).

    The key at s is at distance past + t - s. With distances in reverse, and zeros behind each row to make it past + T + 1 long,
    the next row of the result begins one number earlier in its row: all of it is one piece of memory (Dai et al. 2019, appendix
    B). Distances below 0 and from J on show what stands beside, finite, and are to be hidden.
    """
    t, keys = position_scores.shape[2], past + position_scores.shape[2]
    long = pad(position_scores.flip(-1), (0, keys + 1 - position_scores.shape[3])).flatten(2)
    first = position_scores.shape[3] - 1 - past
    found: Tensor = long[..., first : first + t * keys].unflatten(2, (t, keys))
    return found
