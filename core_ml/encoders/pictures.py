"""What an encoder makes of observations, as pictures: uint8 (H, W, 3) arrays made with numpy alone.

Every function takes an encoder (`observation`, `encode`, `decode`) and gives a mosaic with a row a kind or a dimension.
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...store.arrays import Array
from ..observations import Observation

GAP = 1  # cells between two pictures
PAPER = 255


def reconstructions(encoder: Any, obs: Tensor, palette: Array | None = None, zoom: int = 8) -> Array:
    """Observations (B, *shape) above what becomes of them in a code and back: 2 rows, B columns."""
    with torch.no_grad():
        back = encoder.decode(encoder.encode(obs))
    return _drawn(encoder.observation, [obs, back], palette, zoom)


def samples(
    encoder: Any,
    obs: Tensor,
    generator: torch.Generator,
    n: int = 8,
    rows: int = 2,
    palette: Array | None = None,
    zoom: int = 8,
) -> Array:
    """Made up observations, `rows` rows of n: the encoder's own `sample`, or what normal codes decode to that have mean and
    covariance of those of `obs` (B, *shape)."""
    with torch.no_grad():
        if hasattr(encoder, "sample"):
            made = encoder.sample(rows * n, generator)
        else:
            code = encoder.encode(obs)
            spread = torch.randn(rows * n, len(obs), generator=generator) @ (code - code.mean(0)) / max(len(obs) - 1, 1) ** 0.5
            made = encoder.decode(code.mean(0) + spread)
    return _drawn(encoder.observation, list(made.split(n)), palette, zoom)


def traversals(
    encoder: Any, obs: Tensor, steps: int = 7, span: float = 2.0, rows: int = 8, palette: Array | None = None, zoom: int = 8
) -> Array:
    """The first of `obs` (B, *shape) with one number of its code moved: a row for each of the `rows` numbers that vary most
    over `obs`, from `span` deviations below its mean to as many above in `steps` columns.

    Where codes are tokens: a row for a position, columns with the rows of the codebook that are chosen most.
    """
    with torch.no_grad():
        if hasattr(encoder, "tokens"):
            tokens = encoder.tokens(obs)
            often = torch.bincount(tokens.flatten(), minlength=len(encoder.codebook)).argsort(descending=True, stable=True)[
                :steps
            ]
            start = tokens[:1].expand(len(often), -1)
            walks = [start.clone() for _ in range(min(rows, tokens.shape[1]))]
            for place, walk in enumerate(walks):
                walk[:, place] = often
            return _drawn(encoder.observation, [encoder.decode(encoder.code_of(walk)) for walk in walks], palette, zoom)
        code = encoder.encode(obs)
        mean, std = code.mean(0), code.std(0, correction=0)
        walks = []
        for d in std.argsort(descending=True, stable=True)[:rows]:
            walk = code[:1].repeat(steps, 1)
            walk[:, d] = mean[d] + std[d] * torch.linspace(-span, span, steps)
            walks.append(walk)
        return _drawn(encoder.observation, [encoder.decode(walk) for walk in walks], palette, zoom)


def pictures(observation: Observation, obs: Tensor, palette: Array | None = None) -> Array:
    """One pixel a cell: obs (B, *shape) -> uint8 (B, h, w, 3).

    Images as they are (grey where they have other than 3 planes: the first). Grids in `palette`, uint8 (codes, 3), planes side
    by side. Vectors as a strip from blue (the least of all numbers here) over white (0) to red.
    """
    array: Array = obs.detach().numpy()
    if observation.kind == "image":
        planes = array if array.shape[1] == 3 else array[:, :1].repeat(3, 1)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    if observation.kind == "grid":
        colours = code_palette(observation.codes) if palette is None else palette
        cells = array.reshape(len(array), *observation.planes(False))
        found: Array = colours[np.concatenate(list(cells.transpose(1, 0, 2, 3)), axis=2)]
        return found
    share = np.nan_to_num(array.reshape(len(array), 1, -1) / max(float(np.abs(array).max(initial=0)), 1e-12))
    red, green, blue = 1 + np.minimum(share, 0), 1 - np.abs(share), 1 - np.maximum(share, 0)
    return (255 * np.stack([red, green, blue], -1)).astype(np.uint8)


def code_palette(codes: int) -> Array:
    """A colour for each code, uint8 (codes, 3): light, dark, then hues as far apart as can be."""
    hues = [colorsys.hsv_to_rgb(0.61803 * k % 1, 0.65, 0.9) for k in range(codes)]
    colours = [(0.92, 0.92, 0.92), (0.2, 0.2, 0.2), *hues][:codes]
    return (255 * np.array(colours)).astype(np.uint8)


def mosaic(tiles: Array, zoom: int = 1) -> Array:
    """Tiles (R, C, h, w, 3), each pixel `zoom` times as large, side by side with a white gap between: uint8 (H, W, 3)."""
    r, c, h, w, _ = tiles.shape
    sheet = np.full((r, h + GAP, c, w + GAP, 3), PAPER, np.uint8)
    sheet[:, :h, :, :w] = tiles.transpose(0, 2, 1, 3, 4)
    flat = sheet.reshape(r * (h + GAP), c * (w + GAP), 3)[:-GAP, :-GAP]
    return flat.repeat(zoom, 0).repeat(zoom, 1)


def _drawn(observation: Observation, rows: list[Tensor], palette: Array | None, zoom: int) -> Array:
    """Rows of equally many observations as a mosaic, colours meaning the same in all of it."""
    drawn = pictures(observation, torch.cat(rows), palette)
    return mosaic(drawn.reshape(len(rows), -1, *drawn.shape[1:]), zoom)
