"""What a shell completes: presets, agents, worlds and runs. Found without importing them wherever that is possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Found = list[str]
ROOT = Path(__file__).parents[1]


def presets(ctx: Any, incomplete: str) -> Found:
    """Names of presets; with `env.` or `agent.` begun, nothing: those are options."""
    return _begin(incomplete, sorted(path.stem for path in (ROOT / "configs" / "presets").glob("*.yaml")))


def agents(ctx: Any, incomplete: str) -> Found:
    """Names of agents, as their decorators say; only where none of those begins so the agents are imported."""
    from ..envs.declared import declared

    return _begin(incomplete, sorted(declared(ROOT / "agents", "agent"))) or _begin(incomplete, _registered())


def _registered() -> Found:
    from ..agents.registry import agents

    return list(agents())


def worlds(ctx: Any, incomplete: str) -> Found:
    """Ids of our worlds and of their presets."""
    from ..envs.declared import declared_worlds

    return _begin(incomplete, declared_worlds())


def runs(ctx: Any, incomplete: str) -> Found:
    """Names of runs and groups in the folder that --dir names, seeds of a group by GROUP/seed-N."""
    from .common import runs_in

    root = Path(ctx.params.get("directory") or "runs")
    group, slash, _ = incomplete.rpartition("/")
    return _begin(incomplete, [f"{group}{slash}{name}" for name in runs_in(root / group)])


def runs_and_agents(ctx: Any, incomplete: str) -> Found:
    """What `eval` and `rollout` take."""
    return runs(ctx, incomplete) + agents(ctx, incomplete)


def agents_presets_and_runs(ctx: Any, incomplete: str) -> Found:
    """What `agent show` takes."""
    return agents(ctx, incomplete) + presets(ctx, incomplete) + runs(ctx, incomplete)


def _begin(incomplete: str, names: Found) -> Found:
    return [name for name in names if name.startswith(incomplete)]
