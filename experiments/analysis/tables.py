"""What a tabular agent has learned, over the board of its world: for `gumdrop agent show RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...agents.protocol import HasPlan, Tabular
from ...agents.tabular.plan import see
from ...agents.tabular.table import UNKNOWN
from ...envs.examine import value_map as value_map
from ...envs.solvers import mdp
from ...envs.solvers.mdp import Solution
from ...store.arrays import Array


class Shown(NamedTuple):
    """A trained run's agent: plain figures and text, and a picture where there is one to draw."""

    document: dict[str, Any]
    picture: value_map.Map | value_map.StateTable | None


def is_tabular(agent: Any) -> bool:
    return isinstance(agent, Tabular | HasPlan)


def show(folder: Path) -> Shown:
    """The agent of a run. Only tabular agents have a "text" and a picture; raises ValueError where there is no checkpoint.

    "met": rows of the table, "values": learned value of each state of the exact model (null: never met), "policy": the greedy
    action there. The board is that of the run's first episode.
    """
    from ...agents.saved import load_run
    from ...envs.names import is_external
    from ...envs.registry import make_world

    agent, config, _ = load_run(folder)
    known: dict[str, Any] = {"agent": config.agent_name, "env": config.env, "options": config.agent_options, "text": ""}
    if not is_tabular(agent):
        return Shown(known, None)
    if isinstance(agent, Tabular):
        known["met"] = agent.table.count
    if is_external(config.env_id):
        return Shown(known | {"text": "no board: the environment is not ours, so it has no exact model"}, None)
    world = make_world(config.env_id, config.env_options)
    try:
        seen = see(world, config.seed)
    except ValueError as error:
        return Shown(known | {"text": f"no board: {error}"}, None)
    solution, q = learned(agent, seen.obs, seen.model)
    picture = value_map.map_of(world, seen.state, seen.model, solution, q.T)
    if picture is not None:
        unmet = np.isnan(picture.value) & (picture.mark != picture.cells) & (picture.mark != " ")
        picture = picture._replace(mark=np.where(unmet, "?", picture.mark), move=np.where(unmet[..., None], 0, picture.move))
    shown = picture or value_map.rows_of(seen.model, solution)
    text = value_map.text(shown, "learned value")
    if picture is not None and (picture.mark == "?").any():
        text += "\n?: never met"
    met = ~np.isnan(solution.value)
    policy = [int(a) if known else None for a, known in zip(solution.policy, met, strict=True)]
    return Shown(known | {"values": solution.value.tolist(), "policy": policy, "text": text}, shown)


def learned(agent: Any, obs: Array, model: Any) -> tuple[Solution, Array]:
    """Values (S,), NaN where the agent was never, its greedy actions (S,), and action values (S, actions).

    `obs` (S, ...) is what the model's states look like. An agent that knows state values only is greedy by one look ahead.
    """
    if isinstance(agent, HasPlan):
        solution = agent.plan.solution
        return solution, mdp.backup(mdp.flatten(model), solution.value, agent.config.gamma).T
    values = agent.values(obs[:, None])
    met = agent.table.find(obs[:, None]) != UNKNOWN
    q = values if values.shape[1] > 1 else mdp.backup(mdp.flatten(model), values[:, 0], agent.config.gamma).T
    value = values.max(1)
    return Solution(np.where(met, value, np.nan), q.argmax(1)), q
