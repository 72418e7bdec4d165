"""Policies as torch modules that can be traced: what `gumdrop export` writes. Greedy acting and nothing else.

A module maps observations (B, *shape) and, where the policy remembers, the parts of its memory (B, ...) to a tuple with the
names of `outputs`, then the next memory. Parameters come from `state_dict`, whoever computed with them.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ...core_ml.nets.actor_critic import actor_critic
from ...core_ml.nets.layers import Tanh
from ...core_ml.nets.q_network import q_network
from ...core_ml.observations import Observation
from ...envs.batch import finite_bounds
from ...store.arrays import Array
from ..slots.spec import resolve
from .recurrent_actor import RecurrentActor

if TYPE_CHECKING:
    from .actor import Actor

LAST = "action"  # the part of the memory that is the action before


class PolicyModule(nn.Module):
    """Preparation -> network -> greedy action. `memory`: parts of the memory by name, one row of each, as an episode begins."""

    def __init__(self, space: Box, outputs: tuple[str, ...], scale: Array | None, memory: dict[str, Tensor]) -> None:
        super().__init__()
        self.shape = tuple(space.shape)
        self.dtype = torch.uint8 if space.dtype == np.uint8 else torch.float32
        self.outputs, self.memory = outputs, memory
        self.encode: Any = None  # of a component in the slot `encoder`
        self.scale = None if scale is None else nn.Parameter(torch.from_numpy(scale.copy()), requires_grad=False)

    def rows(self, obs: Tensor) -> Tensor:
        """obs (B, *shape) -> float32 (B, D): the encoder's codes, or the numbers; standardised where training did so."""
        rows = obs.flatten(1).float() if self.encode is None else self.encode(obs)
        return rows if self.scale is None else ((rows - self.scale[0]) * self.scale[1]).clamp(-10.0, 10.0)


class _Policy(PolicyModule):
    """Of an actor: logits and the likeliest action, or mean, deviation and the mean cut to the space's bounds."""

    def __init__(self, net: Any, space: Box, action: Any, scale: Array | None, memory: dict[str, Tensor]) -> None:
        box = isinstance(action, Box)
        super().__init__(space, ("mean", "std", "action") if box else ("logits", "action"), scale, memory)
        self.net = net
        if isinstance(action, Box):
            self.action_shape, self.actions = action.shape, math.prod(action.shape)
            low, high = (torch.from_numpy(bound.astype(np.float32)) for bound in finite_bounds(action))
            self.low, self.high = nn.Parameter(low, requires_grad=False), nn.Parameter(high, requires_grad=False)
        else:
            self.actions = int(action.n)

    def forward(self, obs: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        said, after = self.said(self.rows(obs), dict(zip(self.memory, memory, strict=True)))
        if self.net.log_std is None:
            action = said.argmax(1)
            found, code = (said, action), one_hot(action, self.actions).float()
        else:
            std = self.net.log_std.exp().expand_as(said)
            cut = (said.unflatten(1, self.action_shape) if self.action_shape else said[:, 0]).clamp(self.low, self.high)
            found, code = (said, std, cut), said.clone()  # type: ignore[assignment]
        return (*found, *(after[name] if name in after else code for name in self.memory))

    def said(self, rows: Tensor, memory: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """What the policy's head says, and the next memory but for the action."""
        return self.net.policy_head(self.net.policy_trunk(rows)), {}


class _Remembering(_Policy):
    """Of an actor with a belief."""

    def __init__(self, belief: Any, *args: Any) -> None:
        super().__init__(*args)
        self.belief, self.belief_net = belief, belief.net

    def said(self, rows: Tensor, memory: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        last = memory.pop(LAST) if LAST in memory else rows.new_empty(len(rows), 0)
        never: Any = _Never(rows.shape[:1])
        belief, after = self.belief.observe(rows, last, never, memory)
        return self.net.policy_head(self.net.trunk(belief)), after


class _Q(PolicyModule):
    """Of a DQN: action values, of quantiles and heads the mean, and the best action."""

    def __init__(self, net: Any, space: Box) -> None:
        super().__init__(space, ("q", "action"), None, {})
        self.net = net

    def forward(self, obs: Tensor) -> tuple[Tensor, ...]:
        q = self.net(self.rows(obs)).mean(2)
        return q, q.argmax(1)


class _Never:
    """`is_first` of rows in the middle of their episodes: false everywhere, which a tracer could not know of a tensor."""

    def __init__(self, shape: Any) -> None:
        self.shape = tuple(shape)

    def any(self, *_: Any) -> bool:
        return False

    def unsqueeze(self, axis: int) -> _Never:
        at = axis % (len(self.shape) + 1)
        return _Never((*self.shape[:at], 1, *self.shape[at:]))

    def __getitem__(self, index: tuple[Any, ...]) -> _Never:
        kept = [size for size, part in zip(self.shape, index, strict=True) if isinstance(part, slice)]
        return _Never(kept)  # a slice may be shorter: only `any` is asked of it

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.masked_fill:  # with this mask
            return args[0]
        return NotImplemented


class _Traced(Observation):
    """An `Observation` for tracers: no checks, which ask for values, and no sizes taken as numbers."""

    def rows(self, obs: Tensor, one_hot: bool) -> Tensor:
        flat = obs.flatten(1)
        if self.kind != "grid" or not one_hot:
            return flat.float() / (1 if self.kind == "vector" else 255 if self.kind == "image" else max(self.codes - 1, 1))
        codes = torch.arange(self.codes).view(1, 1, -1, 1)
        cells: Tensor = flat.unflatten(1, (self.planes(False)[0], 1, -1)) == codes  # (B, K, codes, H W)
        return cells.flatten(1).float()


def actor_module(actor: Actor | RecurrentActor) -> PolicyModule:
    """The policy of an actor. Raises ValueError, one line, where a part of it is not made of tensors."""
    o, space, actions, state = actor.options, actor.input.space, actor.actions, actor.state_dict()
    if not isinstance(space, Box):
        raise ValueError(f"agent {actor.name}: it sees {space}: only a Box can be exported")
    part = actor.part if isinstance(actor, RecurrentActor) else None
    common = space, actions.space, actor.input.scale()
    module: PolicyModule
    if part is None:
        network = o.network, o.hidden, o.channels, o.activation, o.shared_trunk
        net: Any = actor_critic(actor.input.shape, actions.size, actions.continuous, *network)
        module = _Policy(net, *common, {})
    else:
        net, belief, memory = _remembering(actor, part)
        module = _Remembering(belief, net, *common, memory)
    _put(net, state, actor.name)
    if actor.encoding:
        module.encode, module.encoder = _encoder(actor.encoding.component, o.encoder.name if o.encoder else "")
    return _plain(module)


def _remembering(actor: Actor | RecurrentActor, part: Any) -> tuple[Any, Any, dict[str, Tensor]]:
    """An actor-critic over a belief as the learner has it, the belief, and its memory at an episode's start."""
    from ...core_ml.learners.torch_recurrent import RecurrentActorCritic

    o, actions = actor.options, actor.actions
    found, config = resolve("belief", part)
    belief: Any = found.cls(config, actor.input.size, actions.size if part.actions else 0, 0)
    if not any(True for _ in belief.net.parameters()) and part.name != "frames":
        raise ValueError(f"agent {actor.name}: belief {part.name} is no network: only frames and networks are exported")
    net = RecurrentActorCritic(belief, actions.size, actions.continuous, o.hidden, o.activation)
    memory = dict(belief.initial(1)) | ({LAST: torch.zeros(1, actions.size)} if part.actions else {})
    if any(bool(x.any()) for x in memory.values()):
        raise ValueError(f"agent {actor.name}: belief {part.name} begins with something else than zeros")
    return net, belief, memory


def q_module(agent: Any) -> PolicyModule:
    """The policy of a `DQN` (not annotated: `dqn.py` imports this file). Raises ValueError as `actor_module`."""
    o, space, state = agent.config, agent.spaces.observation, agent.state_dict()
    if not isinstance(space, Box):
        raise ValueError(f"agent dqn: it sees {space}: only Box is exported")
    net = q_network(
        space.shape, agent.actions, o.network, o.hidden, o.channels, o.activation, o.dueling, o.noisy, o.quantiles,
        o.ensemble_size, o.prior_scale,
    )  # fmt: skip
    _put(net, state, "dqn")
    return _plain(_Q(net, space))


def _put(net: nn.Module, state: dict[str, Array], name: str) -> None:
    """Give a network the parameters `model.*` of an agent's state."""
    own = {key.removeprefix("model."): torch.from_numpy(x.copy()) for key, x in state.items() if key.startswith("model.")}
    wanted = {key for key, _ in net.named_parameters()}  # a trunk that is shared stands there once
    if wanted != own.keys():
        raise ValueError(f"agent {name}: {min(wanted ^ own.keys())} is not a parameter of both its state and its network")
    net.load_state_dict(own, strict=False)


def _encoder(component: Any, name: str) -> tuple[Any, nn.Module]:
    """`encode` of a copy of the component that can be traced, and its parameters. Raises ValueError where it has no tensors."""
    twin = copy.copy(component)
    if type(component).__name__ in ("Classical", "Symbols"):
        raise ValueError(f"encoder {name} is no network: vae, vq-vae, autoencoder and one-hot can be exported")
    twin.observation = _Traced(*component.observation)
    if not hasattr(twin, "autoencoder"):
        return twin.encode, nn.Identity()
    inner = twin.autoencoder = copy.copy(component.autoencoder)
    inner.observation = twin.observation
    inner.model = copy.deepcopy(component.autoencoder.model)
    return twin.encode, inner.model


def _plain(module: PolicyModule) -> PolicyModule:
    """With torch's own tanh, which differs from ours by 1.2e-7 at most and has a node of its own in every format."""
    for part in [*module.modules()]:
        for name, child in [*part.named_children()]:
            if isinstance(child, Tanh):
                setattr(part, name, nn.Tanh())
    for p in module.parameters():
        p.requires_grad_(False)
    return module.eval()
