"""What a world model foresees, beside what happened: it observes the first steps, then imagines with the actions that were
really taken (open loop). As a film, true above imagined; and as figures by horizon, how far its rewards and ends can be
trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...store.arrays import Array
from ..data.sequences import Sequences
from ..encoders.pictures import PAPER, mosaic, pictures
from ..observations import Observation
from ..optim.parallel import one_thread_each
from .protocol import WorldModel, before, stacked, tensors

SEEING, IMAGINING = (120, 120, 120), (213, 94, 0)  # colour of the strip below a frame
STRIP = 4  # pixels


class OpenLoop(NamedTuple):
    """B sequences of L steps, of which the model saw the observations of the first `context`, K, and foresaw H = L - K more."""

    true: Tensor  # (B, L, *shape)
    imagined: Tensor  # (B, L, *shape): while it sees, what its features decode to; then what it imagines
    context: int
    running: Tensor  # bool (B, L): the episode that is going at step K - 1 is going at this step
    reward: Tensor  # (B, H): foreseen of the action at step K - 1, K, ..
    continue_: Tensor  # (B, H): likewise, the probability that the rules do not end the episode there
    true_reward: Tensor  # (B, H)
    true_continue: Tensor  # float (B, H): 1 or 0


def open_loop(model: WorldModel, batch: Sequences, context: int, generator: torch.Generator | None = None) -> OpenLoop:
    """Imagine each sequence once; without a generator the likeliest. A sequence begins from nothing, as an episode does. Raises
    ValueError where nothing is left to see, or to foresee."""
    one_thread_each()
    obs, action, reward, terminated, is_first = tensors(batch, model.actions)
    steps = reward.shape[1]
    if not 0 < context < steps:
        raise ValueError(f"open loop: of {steps} steps the first {context} are to be seen: give 1 to {steps - 1}")
    is_first[:, 0] = True
    previous = before(action)
    seen, foreseen = slice(0, context), slice(context - 1, steps - 1)
    with torch.inference_mode():
        features, state = model.sequence(
            obs[:, seen], previous[:, seen], is_first[:, seen], model.initial(len(obs)), generator
        )  # fmt: skip
        decoded, outcomes = [model.decode(features[:, t]) for t in range(context)], []
        for t in range(context - 1, steps - 1):
            state, outcome = model.step(state, action[:, t], generator)
            decoded.append(model.decode(model.features(state)))
            outcomes.append(outcome)
    said = stacked(outcomes, 1)
    episode = is_first.long().cumsum(1)
    return OpenLoop(
        obs, torch.stack(decoded, 1), context, episode == episode[:, context - 1 : context],
        said.reward, said.continue_, reward[:, foreseen],
        1.0 - terminated[:, foreseen].float(),
    )  # fmt: skip


def calibration(model: WorldModel, batch: Sequences, horizon: int, generator: torch.Generator) -> dict[str, list[float]]:
    """By horizon k = 1 .. H, after the model saw the first L - H steps of sequences (B, L); c, r: what it says of each step.

    continue, true_continue: mean of c_1 .. c_k, the probability that the rules have not ended the episode by then, and how
    often that was so;  reward, true_reward: mean of c_1 .. c_{k-1} r_k, and of what the k-th action earned, 0 after an end;
    brier: mean squared difference of that probability and what happened, 1 or 0;  brier_constant: what saying `true_continue`
    of every sequence would have;  rows: how many sequences are known so far.

    A time limit is no end: it hides how the episode would have gone on. Those not cut stand for those that were, with weights
    of one over the share that is left (Graf et al. 1999, "Assessment and comparison of prognostic classification schemes for
    survival data", section 3). Where all were cut, figures are NaN.
    """
    found = open_loop(model, batch, batch.reward.shape[1] - horizon, generator)
    still = found.running[:, found.context - 1 : -1]  # (B, H): the k-th action is taken in the episode
    ends = still & (found.true_continue == 0)
    over = ends.long().cumsum(1) > 0
    cut = (still & ~ends & ~found.running[:, found.context :]).sum(0) / (still & ~ends).sum(0).clamp(1)
    left = torch.cat([torch.ones(1), 1 - cut[:-1]]).double().cumprod(0)  # share not cut before the k-th action
    then = torch.minimum(torch.arange(horizon), torch.where(over.any(1), over.int().argmax(1), horizon).unsqueeze(1))
    weight = (still | over) / left[then].clamp_min(1e-12)  # (B, H)
    foreseen, goes = found.continue_.double().cumprod(1), (~over).double()
    reached = torch.cat([torch.ones_like(foreseen[:, :1]), foreseen[:, :-1]], 1)

    def mean(x: Tensor) -> Tensor:
        return torch.where(left > 0, (x * weight).sum(0) / weight.sum(0), torch.nan)

    share = mean(goes)
    figures = {
        "rows": (still | over).sum(0).double(), "continue": mean(foreseen), "true_continue": share,
        "reward": mean(reached * found.reward), "true_reward": mean(found.true_reward * still),
        "brier": mean((foreseen - goes).square()), "brier_constant": share * (1 - share),
    }  # fmt: skip
    return {"horizon": list(map(float, range(1, horizon + 1)))} | {name: part.tolist() for name, part in figures.items()}


def frames(observation: Observation, found: OpenLoop, draw: Callable[[Tensor], Array] | None = None, zoom: int = 8) -> Array:
    """The film, uint8 (L, H, W, 3): in each frame a column for each sequence, what was true above what is imagined, and a strip
    below, grey while the model observes, orange while it imagines. White after the imagined episode has really ended.

    `draw`: observations (N, *shape) -> uint8 (N, h, w, 3); else one square of `zoom` pixels for each number in them.
    """
    b, steps = found.running.shape
    both = torch.stack([found.true, found.imagined]).transpose(1, 2).flatten(0, 2)  # 2 L B observations, in this order
    drawn = draw(both) if draw else pictures(observation, both).repeat(zoom, 1).repeat(zoom, 2)
    tiles = drawn.reshape(2, steps, b, *drawn.shape[1:])
    tiles = np.where(found.running.T.numpy()[None, :, :, None, None, None], tiles, np.uint8(PAPER))
    film = []
    for t in range(steps):
        picture = mosaic(np.pad(tiles[:, t], ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=PAPER))
        strip = np.full((STRIP, picture.shape[1], 3), IMAGINING if t >= found.context else SEEING, np.uint8)
        film.append(np.concatenate([picture, strip]))
    return np.stack(film)
