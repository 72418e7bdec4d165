"""The right collector for an environment, an agent and a device."""

from __future__ import annotations

import math
from collections.abc import Callable

from ....agents.protocol import Agent, Driving
from ....envs.batch import BatchEnv
from .host import Collector


def collector_of(env: BatchEnv, agent: Agent, device: str = "cpu", budget: float = math.inf) -> Collector:
    """What collects on `device`, where `env` and `agent` have been made for it; `budget` steps in all, if that is known."""
    if isinstance(agent, Driving):
        from .driven import DrivenCollector

        return DrivenCollector(env, agent, budget)
    if device == "cpu":
        return Collector(env, agent)
    from .device import DeviceCollector

    return DeviceCollector(env, agent)


def fit(
    agent: Agent, env: BatchEnv, updates: int, say: Callable[[dict[str, float]], None] | None = None,
    progress: tuple[float, float] = (0.0, 1.0),
) -> None:  # fmt: skip
    """`updates` rounds of collecting and learning in `env` as it stands, as `train` does, without its files. `progress`: where
    they begin and end within a run of several lessons; rates that fall over the run follow it."""
    collector = collector_of(env, agent, budget=updates * agent.num_steps * env.num_envs)
    collector.begin(env.obs)
    for update in range(updates):
        done = progress[0] + (progress[1] - progress[0]) * update / updates
        metrics = agent.learn(collector.rollout(agent.num_steps), done)
        if say:
            say(collector.pop_statistics() | metrics)
