"""A saved run: the agent of one of its checkpoints, ready to act."""

from __future__ import annotations

from pathlib import Path

from ..configs.schema import RunConfig
from ..envs.make import make
from ..envs.names import load_plugin_files
from ..store.checkpoint import Checkpoint, CheckpointError
from ..store.run_folder import RunFolder
from .protocol import Agent
from .registry import make_agent


def load_run(folder: RunFolder | Path, checkpoint: str | Checkpoint = "latest") -> tuple[Agent, RunConfig, list[str]]:
    """The trained agent of a run, its configuration, and warnings about damaged checkpoints.

    `checkpoint`: latest, best, deploy or a number of environment steps, see `RunFolder.checkpoint`; or one that was read
    already. Raises ValueError, one line, where there is none.
    """
    run = RunFolder(folder)
    config = run.config()
    load_plugin_files(config.plugins)
    found = run.checkpoint(checkpoint) if isinstance(checkpoint, str) else checkpoint
    env = make(config.env_id, config.env_options, num_envs=1)
    agent = make_agent(config.agent_name, config.agent_options, env, config.seed, config.threads or 1)
    env.close()
    if "agent" not in found.tensors:
        raise CheckpointError(f"checkpoint {found.path.name} holds no agent: train it again")
    agent.load_state_dict(found.tensors["agent"])
    return agent, config, found.warnings
