"""A saved run: the agent of its newest checkpoint, ready to act."""

from __future__ import annotations

from pathlib import Path

from ..configs.loader import read_run
from ..configs.schema import RunConfig
from ..envs.make import make
from ..envs.names import load_plugin_files
from ..store import checkpoint
from .protocol import Agent
from .registry import make_agent


def load_run(folder: Path) -> tuple[Agent, RunConfig, list[str]]:
    """The trained agent of a run, its configuration, and warnings about damaged checkpoints."""
    config = read_run(folder / "config.yaml")
    load_plugin_files(config.plugins)
    found = checkpoint.load(folder)
    env = make(config.env_id, config.env_options, num_envs=1)
    agent = make_agent(config.agent_name, config.agent_options, env, config.seed, config.threads or 1)
    env.close()
    if "agent" not in found.tensors:
        raise checkpoint.CheckpointError(f"checkpoint {found.path.name} holds no agent: train it again")
    agent.load_state_dict(found.tensors["agent"])
    return agent, config, found.warnings


def load_deployed(folder: Path) -> tuple[Agent, RunConfig, list[str]]:
    """`load_run` with the checkpoint that a run is used by: the one place that says which that is."""
    return load_run(folder)
