"""Beliefs: what an agent remembers of an episode. The interface, and the functions that every belief shares.

B rows (environments), T steps, D numbers in a code, K in an action (0: actions are not an input). A state is what a belief
carries from step to step: tensors whose first axis is the row. One belief, one file: `frames`, `recurrent`, `tcn`,
`transformer`, `hmm`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ...store.arrays import Array

State = dict[str, Tensor]


class Belief(Protocol):
    """What is known of the world after the codes and actions of an episode so far.

    Where `is_first` is true an episode begins: the row's state counts as that of `initial`, its previous action as zeros.
    """

    size: int  # numbers in a belief
    net: nn.Module  # what an optimiser trains; without parameters where there is nothing to train by gradient

    def initial(self, n: int) -> State:
        """State of n rows before the first step of an episode; the same for every row."""
        ...

    def observe(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: code (B, D), previous action (B, K), is_first bool (B,) -> belief (B, size), state. Changes no argument."""
        ...

    def sequence(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        """T steps: (B, T, D), (B, T, K), (B, T), state before them -> (B, T, size), state after them; differentiable."""
        ...

    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, state: dict[str, Array]) -> None: ...


def burn_in(belief: Belief, code: Tensor, action: Tensor, is_first: Tensor, state: State, steps: int) -> tuple[Tensor, State]:
    """`sequence`, whose first `steps` steps only bring a stored state up to date and take no gradient.

    For states in a replay buffer, which old parameters made (Kapturowski et al. 2019, "Recurrent experience replay", section
    3). Returns the beliefs of the other steps, (B, T - steps, size).
    """
    if steps:
        with torch.no_grad():
            _, state = belief.sequence(code[:, :steps], action[:, :steps], is_first[:, :steps], state)
    return belief.sequence(code[:, steps:], action[:, steps:], is_first[:, steps:], state)


def inputs(code: Tensor, action: Tensor, is_first: Tensor, sizes: tuple[int, int]) -> Tensor:
    """Code and previous action side by side, (..., D + K); the action is zeros where an episode begins.

    Raises ValueError where they are not (..., D) and (..., K) with `sizes` = (D, K).
    """
    shapes = tuple(code.shape), tuple(action.shape), tuple(is_first.shape)
    if shapes != tuple((*is_first.shape, *tail) for tail in ((sizes[0],), (sizes[1],), ())):
        raise ValueError(f"belief: code, action, is_first are {shapes}; the last axes must be {sizes[0]}, {sizes[1]} and none")
    return torch.cat([code, action.masked_fill(is_first.unsqueeze(-1), 0.0)], -1) if sizes[1] else code


def cleared(state: State, is_first: Tensor) -> State:
    """`state` with zeros in the rows where `is_first` (B,) is true, whatever was there; where it is true nowhere, itself."""
    if not is_first.any():
        return state
    return {name: part.masked_fill(is_first.view(-1, *[1] * (part.ndim - 1)), 0) for name, part in state.items()}


def episodes(is_first: Tensor, past: int) -> Tensor | None:
    """For T steps (B, T) and `past` steps before them the number of the episode, int64 (B, past + T); None: one in each row.

    The first step's episode is number 0, and so are all steps before it: `cleared` has seen to those of others.
    """
    if not is_first[:, 1:].any():
        return None
    episode = is_first[:, 1:].long().cumsum(1)
    return torch.cat([episode.new_zeros(len(episode), past + 1), episode], 1)


def newest(rows: Tensor, episode: Tensor | None, keep: int) -> Tensor:
    """The last `keep` of rows (B, past + T, D), zeros for those of episodes that are over: the past of the next rows."""
    last = rows[:, rows.shape[1] - keep :]
    if episode is None:
        return last
    return last.masked_fill((episode[:, episode.shape[1] - keep :] != episode[:, -1:]).unsqueeze(-1), 0.0)
