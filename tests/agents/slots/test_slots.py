"""Slots of an agent: how they are filled, who learns, what is remembered where episodes are cut; and what ablations compare.

Oracles: 1/2 without memory and 1 with it on a T-maze; values by a slow pass over whole episodes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gumdrop.agents.registry import agent_config, make_agent
from gumdrop.configs.loader import resolve
from gumdrop.configs.schema import RunConfig
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.episodes import run_episodes
from gumdrop.experiments.study.ablate import ablate, arms_of, slots_of
from gumdrop.scripts.cli import main

T_MAZE = {"size": 3, "time_limit": 7}
SMALL: dict[str, Any] = {"num_steps": 8, "hidden": [8], "update_epochs": 2, "num_minibatches": 2, "encoder": "one-hot"}
GRU = {"name": "gru", "hidden": 6}


def test_a_slot_is_filled_by_a_name_or_a_mapping_or_not_at_all() -> None:
    one, other = (agent_config("ppo", {"belief": part}) for part in ("gru", {"name": "gru"}))
    assert one == other and one.belief.name == "gru" and not one.belief.untrained  # type: ignore[attr-defined]
    for nothing in ("none", None, {"name": "none"}):
        assert agent_config("ppo", {"belief": nothing}) == agent_config("ppo", {})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"belief": "gruu"}, r"belief: no belief 'gruu': did you mean gru"),
        ({"belief": {"name": "gru", "hiden": 3}}, r"belief gru has no option 'hiden': did you mean hidden"),
        ({"belief": {"name": "gru", "hidden": 0}}, r"belief gru: hidden: input should be greater than or equal to 1"),
        ({"belief": {"name": "gru", "cell": "lstm"}}, r"belief gru has cell=gru: leave cell out"),
        ({"belief": {"hidden": 3}}, r"belief.name: field required"),
        ({"encoder": {"name": "vae", "freeze_after": 2}}, r"encoder.freeze_after: input should be less than or equal to 1"),
        ({"encoder": 3}, r"encoder: input should be"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_part_is_refused_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        agent_config("ppo", options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"belief": "gru", "network": "cnn"}, "network=cnn does not go with a belief: leave it out"),
        ({"belief": "gru", "shared_trunk": False}, "shared_trunk=False does not go with a belief: leave it out"),
        ({"belief": "gru", "learner": "fused"}, "learner=fused cannot do this network"),
        ({"hidden": []}, r"hidden=\[\] leaves no layer"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_go_together_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_agent("ppo", options, make("t-maze", T_MAZE), 0)


def updated(options: dict[str, Any], updates: int = 2, of: int = 10) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """State before and after some updates of a training of `of`, and the last metrics."""
    env = make("t-maze", T_MAZE, num_envs=6, seed=0)
    agent = make_agent("ppo", {**SMALL, **options}, env, 0)
    collector = Collector(env, agent)
    collector.begin(env.reset(0))
    before = agent.state_dict()
    for update in range(updates):
        metrics = agent.learn(collector.rollout(8), update / of)
    return before, agent.state_dict(), metrics


def changed(before: dict[str, Any], after: dict[str, Any], prefix: str) -> set[bool]:
    return {not np.array_equal(before[name], after[name]) for name in before if name.startswith(prefix)}


def test_an_untrained_part_stays_as_it_was_made() -> None:
    before, after, _ = updated({"belief": {**GRU, "untrained": True}})
    assert changed(before, after, "model.belief_net") == {False} and changed(before, after, "model.policy_head") == {True}
    before, after, _ = updated({"belief": GRU})
    assert changed(before, after, "model.belief_net") == {True}
    vae = {"name": "vae", "size": 3, "hidden": [8], "updates": 2, "batch": 16}
    before, after, metrics = updated({"encoder": {**vae, "untrained": True}})
    assert changed(before, after, "encoder.") == {False} and "encoder/elbo" not in metrics
    before, after, metrics = updated({"encoder": vae})
    assert True in changed(before, after, "encoder.model") and "encoder/elbo" in metrics
    before, after, metrics = updated({"encoder": {**vae, "freeze_after": 0.1}}, of=10)  # learns in the first update only
    assert True in changed(before, after, "encoder.model") and "encoder/elbo" not in metrics
    hmm = {"encoder": {"name": "symbols", "size": 12}, "belief": {"name": "hmm", "states": 4, "prior": 0.1}}
    before, after, metrics = updated(hmm)
    assert changed(before, after, "belief.") == {True} and "belief/log_likelihood" in metrics


@pytest.mark.parametrize("belief", [GRU, {"name": "transformer", "width": 8, "heads": 2, "layers": 1, "window": 4}], ids=str)
def test_values_of_episodes_that_were_cut_are_those_of_who_remembers_them(belief: dict[str, Any]) -> None:
    """A slow pass, one episode at a time and step by step, gives what the rollout and `next_values` hold."""
    env = make("t-maze", T_MAZE, num_envs=3, seed=0)
    agent: Any = make_agent("ppo", {**SMALL, "num_steps": 20, "belief": belief}, env, 0)
    collector = Collector(env, agent)
    collector.begin(env.reset(0))
    collector.rollout(5)  # the next rollout begins within episodes
    batch = collector.rollout(20)
    assert batch.truncated.sum() >= 3
    found = agent.actor.next_values(batch)
    for copy in range(3):
        carry = {name: part[copy : copy + 1] for name, part in batch.carry.items()}  # type: ignore[union-attr]
        cut = 0
        for t in range(20):
            state = {name: part.reshape(-1, *part.shape[2:]) for name, part in carry.items()}
            rows = agent.actor.input.rows(batch.obs[t, copy : copy + 1])
            _, value, state = agent.actor.learner.outputs(rows, state)
            assert batch.extras["value"][t, copy, 0] == pytest.approx(value[0], abs=1e-5)
            state["action"] = np.eye(4, dtype=np.float32)[batch.action[t, copy]]
            after = {name: part[:, None] for name, part in state.items()}
            nxt = batch.obs[t + 1, copy] if t < 19 else batch.last_obs[copy]
            if batch.truncated[t, copy]:
                order = np.argwhere(batch.truncated).tolist().index([t, copy])
                nxt, cut = batch.final_obs[order], cut + 1
            if not batch.terminated[t, copy]:
                wanted = agent.bootstrap_value(nxt[None], after)[0, 0]
                assert found[t, copy, 0] == pytest.approx(wanted, abs=1e-5), (t, copy)
            carry = agent.initial(1) if batch.truncated[t, copy] or batch.terminated[t, copy] else after


@pytest.mark.parametrize(
    ("world", "actions"), [("t-maze", True), ("t-maze", False), ("candy-race", True), ("point-maze", True)]
)
def test_rollouts_in_one_call_are_those_step_by_step(world: str, actions: bool) -> None:
    """To the bit: what happened, what is remembered, values of episodes that were cut, and what is learned from it."""
    made = []
    for together in (True, False):
        env = make(world, {"time_limit": 7} | ({"size": 3} if world == "t-maze" else {}), num_envs=6, seed=0)
        options = {"num_steps": 20, "belief": {**GRU, "actions": actions}, "hidden": [], "num_minibatches": 2}
        agent: Any = make_agent("ppo", options, env, 0)
        collector = Collector(env, agent)
        assert collector._native is not None
        if not together:
            collector._native = None
        collector.begin(env.reset(0))
        batches = []
        for _ in range(3):
            batch = collector.rollout(20)
            assert batch.truncated.any()
            arrays = {**batch._asdict(), **batch.extras, **(batch.last_carry or {}), "now": collector.obs}
            batches.append({k: np.array(v) for k, v in arrays.items() if isinstance(v, np.ndarray)})
            agent.learn(batch, 0.0)
        made.append((batches, agent.state_dict()))
    for one, other in zip(*(batches for batches, _ in made), strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert all(np.array_equal(made[0][1][name], made[1][1][name]) for name in made[0][1])


def test_memory_is_what_a_t_maze_takes() -> None:
    config = resolve("t-maze-gru", None, [], {})
    env = make(config.env_id, config.env_options, num_envs=config.num_envs, seed=0)
    agent = make_agent(config.agent_name, config.agent_options, env, 0)
    collector = Collector(env, agent)
    collector.begin(env.reset(0))
    updates = 36_000 // (config.num_envs * agent.num_steps)
    for update in range(updates):
        agent.learn(collector.rollout(agent.num_steps), update / updates)
    assert run_episodes(agent, config.env_id, config.env_options, 300, 10**6, lines=False).returns.mean() > 0.95


def test_codes_are_what_the_policy_reads() -> None:
    env = make("t-maze", T_MAZE, num_envs=4, seed=0)
    agent: Any = make_agent("ppo", {"encoder": "one-hot"}, env, 0)
    obs = env.reset(0)
    codes = agent.actor.input.rows(obs)
    assert codes.shape == (4, 9 * 18) and (codes.reshape(4, 18, 9).argmax(1) == obs.reshape(4, 9)).all()
    assert not agent.can_collect_natively(1)  # kernels read observations as they are
    plain: Any = make_agent("ppo", {}, env, 0)
    assert plain.can_collect_natively(1)


def test_symbols_are_numbered_as_they_are_met() -> None:
    from gumdrop.core_ml.encoders.one_hot import Symbols
    from gumdrop.core_ml.observations import Observation

    symbols = Symbols(Symbols.Config(size=3), Observation("grid", (2, 2), 5), 0)
    cells = [[0, 1, 2, 3], [0, 1, 2, 3], [3, 2, 1, 0], [4, 4, 4, 4], [0, 0, 0, 1]]
    boards = torch.tensor(cells, dtype=torch.uint8).view(5, 2, 2)
    generator = torch.Generator()
    assert not symbols.encode(boards).any()
    symbols.update(boards[:3], generator)
    symbols.update(boards, generator)  # the last one finds no number left
    assert symbols.encode(boards).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert torch.equal(symbols.decode(symbols.encode(boards[:4])), boards[:4])


# ---- ablations ----


def test_arms_are_one_configuration_with_one_slot_changed() -> None:
    config = resolve("t-maze-gru", None, [], {})
    assert slots_of(config) == {"encoder": {"name": "one-hot"}, "belief": {"name": "gru", "hidden": 32}}
    arms = arms_of(config, "belief", others={"lstm": "lstm"})
    assert [arm.agent["belief"] for arm in arms.values()] == [
        {"name": "gru", "hidden": 32}, {"name": "gru", "hidden": 32, "untrained": True}, None, "lstm",
    ]  # fmt: skip
    assert {json.dumps({**arm.agent, "belief": 0}) for arm in arms.values()} == {json.dumps({**config.agent, "belief": 0})}
    curious = config.model_copy(update={"agent": {"name": "ppo", "bonus": ["rnd", {"name": "shaping", "weight": 0.5}]}})
    assert [arm.agent["bonus"] for arm in arms_of(curious, "bonus").values()] == [
        [{"name": "rnd"}, {"name": "shaping", "weight": 0.5}],
        [{"name": "rnd", "untrained": True}, {"name": "shaping", "weight": 0.5, "untrained": True}],
        None,
    ]
    with pytest.raises(ValueError, match="nothing in slot 'bonus' that could be left out: it has encoder, belief"):
        arms_of(config, "bonus")
    with pytest.raises(ValueError, match="no arm 'half': there are trained, untrained, none"):
        arms_of(config, "belief", ["half"])


def test_an_ablation_trains_each_arm_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", "t-maze-gru", "--slot", "belief", "--seeds", "2", "--arms", "trained,none", "--steps", "4096"]
    words += ["--dir", str(tmp_path), "--no-live", "eval_episodes=8"]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["algorithms"]] == ["trained", "none"]
    assert document["algorithms"][1]["difference"]["value"] is not None
    folder = tmp_path / "ablate-t-maze-gru-belief"
    before = (folder / "trained" / "group.json").read_bytes()
    assert main(words) == 0 and (folder / "trained" / "group.json").read_bytes() == before
    assert "IQM - trained's" in capsys.readouterr().out
    assert main(["ablate", "candy-ppo", "--dir", str(tmp_path)]) == 2
    assert "no slot of it is filled" in capsys.readouterr().err


def test_another_budget_is_refused(tmp_path: Path) -> None:
    env = {"id": "t-maze", **T_MAZE}
    agent = {"name": "ppo", **SMALL, "belief": GRU}
    config = RunConfig(env=env, agent=agent, num_envs=6, steps=96, eval_episodes=4)
    ablate(arms_of(config, "belief", ["none"]), [0, 1], tmp_path / "a", live=False, say=lambda line: None)
    with pytest.raises(ValueError, match="one board, one budget"):
        more = config.model_copy(update={"steps": 192})
        ablate(arms_of(more, "belief", ["none"]), [0, 1], tmp_path / "a", live=False, say=lambda line: None)
