"""Our worlds' ids in Gymnasium, and their registration there."""

from __future__ import annotations

from collections.abc import Iterable


def gym_id(world: str) -> str:
    """Gymnasium's id of a world: candy -> gumdrop/Candy-v0, dark_room -> gumdrop/DarkRoom-v0."""
    parts = world.replace("_", "-").split("-")
    return f"gumdrop/{''.join(part[:1].upper() + part[1:] for part in parts)}-v0"


def register_ids(worlds: Iterable[str]) -> None:
    """Register `gym_id(world)` for each name with Gymnasium; ids that it knows already stay as they are."""
    from gymnasium.envs.registration import register, registry

    for world in worlds:
        if gym_id(world) not in registry:
            # no max_episode_steps: the time limit is the world's option, truncation the engine's work
            register(
                gym_id(world),
                entry_point="gumdrop.envs.views.gym_view:GymView",
                vector_entry_point="gumdrop.envs.views.vector_view:VectorView",
                kwargs={"world": world},
            )
