"""World models: what each of them can do, and the functions that they share.

B rows, L steps, K numbers in an action. A world model sees what happened and says what will: the next state in its own terms,
the reward, and whether the episode goes on. Its state, which an imagined trajectory may start from, is a dict of tensors (B,
...) by name, numbers of any kind: h and z of an RSSM, keys and values of a transformer. One model, one file: `rssm`, `mdn_gru`,
`token_model`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, one_hot

from ...store.arrays import Array
from ..beliefs.protocol import State
from ..data.sequences import Sequences
from ..maths.two_hot import TwoHot
from ..nets.layers import mlp
from ..observations import Observation
from ..optim.parallel import one_thread_each

Policy = Callable[[Tensor], Tensor]  # features (B, size) -> actions (B, K)


class Outcome(NamedTuple):
    """What an imagined step brings, beside the next state."""

    reward_on: Tensor  # (B,): expectation of the reward if the episode goes on
    reward_over: Tensor  # (B,): likewise if the step terminates it
    continue_: Tensor  # (B,): probability that it does not

    @property
    def reward(self) -> Tensor:
        """(B,): the expectation, whether the episode goes on or not."""
        return torch.lerp(self.reward_over, self.reward_on, self.continue_)


class ImaginedTrajectory(NamedTuple):
    """H imagined steps of B rows."""

    features: Tensor  # (H + 1, B, size): before each step, and after the last
    action: Tensor  # (H, B, K)
    reward: Tensor  # (H, B): expectations
    continue_: Tensor  # (H, B)


class WorldModel(Protocol):
    """A learned model of a world: what actor-critics, planners and imagined trajectories need.

    Made by (config, observation, action_size, seed), slot "model" of the register. Obs (B, *shape) as `observation` has them;
    actions (B, K) float32, one-hot where they are discrete. Where `is_first` is true an episode begins: the row's state counts
    as that of `initial`, whatever it holds, and its previous action for nothing. With a generator a model draws what is
    uncertain; without one it takes the likeliest, draws nothing, and is a function of its arguments.
    """

    observation: Observation
    actions: int  # K
    size: int  # of features

    def initial(self, n: int) -> State:
        """The state of n rows before the first observation of an episode; the same for every row."""
        ...

    def features(self, state: State) -> Tensor:
        """What policies and values read of a state: float32 (B, size)."""
        ...

    def observe(
        self, obs: Tensor, action: Tensor, is_first: Tensor, state: State, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """One real step: obs (B, *shape), previous action (B, K), is_first bool (B,) -> features (B, size), state. Changes no
        argument."""
        ...

    def sequence(
        self, obs: Tensor, action: Tensor, is_first: Tensor, state: State, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """T real steps: (B, T, *shape), previous actions (B, T, K), (B, T), state before -> (B, T, size), state after."""
        ...

    def step(self, state: State, action: Tensor, generator: torch.Generator | None = None) -> tuple[State, Outcome]:
        """One step in imagination: action (B, K) -> state, outcome. Changes no argument."""
        ...

    def imagine(self, state: State, policy: Policy, steps: int, generator: torch.Generator) -> ImaginedTrajectory:
        """`steps` steps of every row from `state`, with the actions of `policy`; without gradients."""
        ...

    def decode(self, belief: Tensor) -> Tensor:
        """The likeliest observations, (B, *shape), of features (B, size)."""
        ...

    def update(self, batch: Sequences, generator: torch.Generator) -> dict[str, float]:
        """Learn one step from B sequences; metrics, among them `loss`."""
        ...

    def learn(self, batch: Sequences, generator: torch.Generator, rate: float = 1.0) -> tuple[dict[str, float], State]:
        """`update` with `rate` times the learning rate, and states at the steps of the batch as `posterior` gives them, by the
        model before or after the update."""
        ...

    def posterior(self, batch: Sequences, generator: torch.Generator | None = None) -> State:
        """The whole states at the steps of a batch, each (B, L, ...), without gradients: where imagined trajectories may
        start. A sequence that begins within an episode starts from nothing, as an episode does."""
        ...

    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, state: dict[str, Array]) -> None: ...


class OutcomeHeads(nn.Module):
    """What a step brings, from H numbers (..., H) that know of the action and not yet of the next observation: whether the
    rules let the episode go on, and the reward in either case, as a two-hot distribution. Time limits are no part of it.

    With independent heads an uncertain model would pay part of a goal's reward and also continue, so it could be paid again. We
    therefore factor p(r, c | h) = p(c | h) p(r | c, h). The reward of a case that never occurs, such as continuing at a goal,
    is extrapolated from the other case.
    """

    def __init__(self, inputs: int, width: int, activation: str, two_hot: TwoHot) -> None:
        super().__init__()
        self.two_hot, bins = two_hot, len(two_hot.values)
        self.reward = nn.Sequential(*mlp([inputs + 1, width], activation), nn.Linear(width, bins))  # 1: over, or not
        self.continue_ = nn.Sequential(*mlp([inputs, width], activation), nn.Linear(width, 1))

    def begin(self) -> None:
        """Start with rewards near 0 and P(continue) near one half; all layers have been initialised before."""
        last: Any = self.reward[-1]
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(-self.two_hot.values.abs())
            self.continue_[-1].weight.mul_(0.1)  # type: ignore[operator]

    def outcome(self, h: Tensor) -> Outcome:
        first: Any
        first, act, last = self.reward
        on = linear(h, first.weight[:, :-1], first.bias)  # what both cases have in common is computed once
        reward_on, reward_over = (self.two_hot.decode(last(act(hidden))) for hidden in (on, on + first.weight[:, -1]))
        return Outcome(reward_on, reward_over, self.continue_(h).squeeze(-1).sigmoid())

    def loss(self, h: Tensor, reward: Tensor, terminated: Tensor) -> tuple[Tensor, Tensor]:
        """-ln p(reward | goes on or not, h) and -ln p(goes on or not | h), (...) each, for h (..., H), reward (...), terminated
        bool (...)."""
        goes = binary_cross_entropy_with_logits(self.continue_(h).squeeze(-1), 1.0 - terminated.float(), reduction="none")
        said = self.reward(torch.cat([h, terminated.unsqueeze(-1).to(h.dtype)], -1))
        return self.two_hot.loss(said, reward), goes


def imagine(model: WorldModel, state: State, policy: Policy, steps: int, generator: torch.Generator) -> ImaginedTrajectory:
    """`WorldModel.imagine` by steps of `model`."""
    one_thread_each()
    with torch.inference_mode():
        features, actions, outcomes = [model.features(state)], [], []
        for _ in range(steps):
            actions.append(policy(features[-1]))
            state, outcome = model.step(state, actions[-1], generator)
            features.append(model.features(state))
            outcomes.append(outcome)
    # Outside again: what inference mode made takes no part in gradients.
    found = stacked(outcomes, 0)
    return ImaginedTrajectory(torch.stack(features), torch.stack(actions), found.reward, found.continue_)


def stacked(outcomes: list[Outcome], dim: int) -> Outcome:
    """The outcomes of several steps as one, along a new dimension."""
    return Outcome(*(torch.stack(parts, dim) for parts in zip(*outcomes, strict=True)))


def tensors(batch: Sequences, actions: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A batch as tensors: obs, action (B, L, K) with whole numbers as one-hot vectors, reward, terminated, is_first, of which
    the last is a copy."""
    obs, action, reward, terminated, is_first = map(torch.from_numpy, batch)
    action = one_hot(action, actions) if action.dtype == torch.int64 else action
    return obs, action.float(), reward, terminated, is_first.clone()


def before(action: Tensor) -> Tensor:
    """The actions before those of a batch, (B, L, K), zeros before the first."""
    return torch.cat([torch.zeros_like(action[:, :1]), action[:, :-1]], 1)
