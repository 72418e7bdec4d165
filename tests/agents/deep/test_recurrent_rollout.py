"""A GRU and a native world in one call: the bits of acting and stepping by turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gumdrop.agents.protocol import RolloutBuffer
from gumdrop.core_ml.learners.fused import FusedRecurrent, GRUSpec
from gumdrop.envs.batch import flat_size
from gumdrop.envs.make import make

pytestmark = pytest.mark.xdist_group("fused")
STEPS = 9
CASES: dict[str, tuple[str, dict[str, Any], int, bool]] = {
    "maze": ("maze", {"size": 5, "view": 3, "time_limit": 4}, 700, False),
    "two agents, last action read": ("candy", {"agents": 2, "time_limit": 3}, 70, True),
    "continuous": ("point-maze", {"time_limit": 3}, 130, True),
}


def learner(env: Any, reads_action: bool, threads: int) -> FusedRecurrent:
    space, box = env.action_space, not hasattr(env.action_space, "n")
    sizes = (flat_size(space),) if box else (int(space.n),)
    head: Any = "gaussian" if box else "categorical"
    net = FusedRecurrent(GRUSpec(flat_size(env.observation_space), 20, head, sizes, reads_action), threads=threads)
    net.initialise(0, 0)
    net.parameters.flat += 0.2 * np.random.default_rng(0).standard_normal(net.parameters.flat.size).astype(np.float32)
    return net


def bounds_of(env: Any) -> Any:
    space = env.action_space
    return None if hasattr(space, "n") else np.stack([space.low.reshape(-1), space.high.reshape(-1)]).astype(np.float32)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_native_rollout_has_the_bits_of_acting_and_stepping_by_turns(case: Any) -> None:
    id, options, num_envs, reads_action = case
    seeds = np.arange(STEPS) + 5
    env = make(id, options, num_envs=num_envs, seed=3, threads=1)
    net, agents = learner(env, reads_action, 1), env.num_agents
    assert net.can_collect_natively(agents)
    obs, bounds, count = env.reset(5), bounds_of(env), num_envs * agents
    start, state, fresh = net.initial(count), net.initial(count), net.initial(1)
    turns: dict[str, list[Any]] = {name: [] for name in ("obs", "action", "reward", "log_prob", "value", "truncated")}
    hidden: list[Any] = []
    for t in range(STEPS):
        turns["obs"].append(obs.copy())
        rows = obs.reshape(count, -1)
        acted, state = net.act(rows if rows.dtype == np.uint8 else rows.astype(np.float32), state, int(seeds[t]))
        action = acted.action if bounds is None else acted.action.clip(*bounds)
        action = action.reshape(num_envs, agents, *env.action_space.shape)
        step = env.step(action)
        ended = np.repeat(step.terminated | step.truncated, agents)
        hidden.append(state["h"][np.repeat(step.truncated, agents)])
        for name, part in state.items():
            part[ended] = fresh[name]
        obs = step.obs
        found = action, step.reward, acted.log_prob, acted.value, step.truncated
        for name, array in zip(("action", "reward", "log_prob", "value", "truncated"), found, strict=True):
            turns[name].append(array.copy())
    assert sum(len(h) for h in hidden) > num_envs / 4
    for threads in (1, 2):
        other: Any = make(id, options, num_envs=num_envs, seed=3, threads=1)
        other.reset(5)
        native, net = other.native(), learner(other, reads_action, threads)
        shown, kind = native.obs.shape[1:], native.obs.dtype
        flags, numbers = (STEPS, num_envs), (STEPS, num_envs, agents)
        buffer = RolloutBuffer(
            np.zeros((STEPS, num_envs, *shown), kind), np.zeros((*flags, *native.action_shape), native.action_dtype),
            np.zeros(numbers, np.float32), np.zeros(flags, np.bool_), np.zeros(flags, np.bool_),
            np.zeros((STEPS, num_envs, *shown), kind), np.zeros(numbers), np.zeros(flags, np.int64),
        )  # fmt: skip
        buffers = net.buffers(STEPS * count)
        share, after, lost = net.collect_natively(native, buffer, seeds, buffers, start, bounds=bounds)
        assert 0 < share < 1
        same = {"obs": buffer.obs, "action": buffer.action, "reward": buffer.reward, "truncated": buffer.truncated}
        same |= {name: getattr(buffers, name).reshape(STEPS, count) for name in ("log_prob", "value")}
        for name, array in same.items():
            expected = np.stack(turns[name])
            assert expected.size == array.size and expected.tobytes() == array.tobytes(), name
        for name, part in state.items():
            assert after[name].tobytes() == part.tobytes() and after[name].shape == part.shape, name
        assert np.concatenate(hidden).tobytes() == lost[np.repeat(buffer.truncated, agents, 1)].tobytes()
        assert not start["h"].any()
        again = net.collect_natively(native, buffer, seeds, buffers, after, bounds=bounds, final_h=lost)[2]
        assert again is lost
