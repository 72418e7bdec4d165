"""An agent's parts and their shapes; and what its encoder makes of observations, as pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ...agents.protocol import Agent, Encodes, Parted, PartRow
from ...agents.registry import make_agent
from ...configs.schema import RunConfig
from ...envs.make import make
from ...store.arrays import Array
from ..run.episodes import play


def outline(config: RunConfig) -> list[PartRow]:
    """The parts of the agent that `config` describes, in its world; nothing for an agent that is one piece."""
    env = make(config.env_id, config.env_options, num_envs=1, seed=config.seed)
    try:
        agent = make_agent(config.agent_name, config.agent_options, env, config.seed)
    finally:
        env.close()
    return agent.parts() if isinstance(agent, Parted) else []


def encoder_sheet(agent: Agent, config: RunConfig, count: int = 8, zoom: int = 8) -> Array | None:
    """Observations of random play above what comes back from their codes, a row of made-up ones where the encoder can, and a
    row for each of a code's numbers that varies, moved: uint8 (H, W, 3). None for an agent without an encoder that decodes.
    """
    import torch

    from ...core_ml.encoders import pictures

    encoding = agent.encoding if isinstance(agent, Encodes) else None
    if encoding is None or not encoding.component.can_decode:
        return None
    encoder, obs = encoding.component, encoding.tensor(observations(config, 64 * count))
    few = obs[:: max(1, len(obs) // count)][:count]
    generator = torch.Generator().manual_seed(config.seed)
    sheets = [
        pictures.reconstructions(encoder, few, zoom=zoom),
        pictures.samples(encoder, obs, generator, n=count, zoom=zoom),
        pictures.traversals(encoder, obs, zoom=zoom),
    ]
    return stacked(sheets, 2 * zoom)


def observations(config: RunConfig, count: int) -> Array:
    """`count` observations of random play, (count, *observation)."""
    env = make(config.env_id, config.env_options, num_envs=8, seed=config.seed)
    agent = make_agent("random", {}, env, config.seed)
    obs = env.reset(config.seed)
    found: list[Array] = []
    steps = math.ceil(count / (env.num_envs * env.num_agents))
    try:
        for moment in play(agent, env, obs, None, "sample", steps, keep_obs=True):
            found.append(moment.obs.reshape(-1, *obs.shape[2:]))
    finally:
        env.close()
    return np.concatenate(found)[:count]


def stacked(sheets: list[Array], gap: int) -> Array:
    """Pictures below each other, white where one is narrower."""
    width = max(sheet.shape[1] for sheet in sheets)
    rows = []
    for sheet in sheets:
        filled = np.full((sheet.shape[0] + gap, width, 3), 255, np.uint8)
        filled[: sheet.shape[0], : sheet.shape[1]] = sheet
        rows.append(filled)
    return np.concatenate(rows)[:-gap]


def save_picture(path: Path, picture: Array) -> None:
    from PIL import Image

    Image.fromarray(picture).save(path)


def as_rows(parts: list[PartRow]) -> list[dict[str, Any]]:
    return [part._asdict() for part in parts]
