"""A world model as an environment: its steps are the model's, agents train in it unchanged, and act awake; the dreamer."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from gumdrop.agents.model_based.world_model_env import WorldModelEnv
from gumdrop.agents.model_based.world_model_policy import WorldModelPolicy
from gumdrop.agents.registry import make_agent
from gumdrop.core_ml.models.protocol import Outcome
from gumdrop.core_ml.models.rssm import RSSM
from gumdrop.core_ml.observations import Observation
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.make import fit
from gumdrop.experiments.run.episodes import run_episodes

SMALL = {"deter": 8, "groups": 2, "classes": 4, "width": 8, "hidden": [8], "code": 8}


class Counted:
    """A model of the test's own: h counts steps, action 1 pays its count, going on with probability `chance`; an
    end pays `prize` beside it."""

    size, observation = 3, Observation.of((1,), np.float32)

    def __init__(self, chance: float = 1.0, prize: float = 0.0) -> None:
        self.chance, self.prize = chance, prize

    def initial(self, n: int) -> dict[str, torch.Tensor]:
        return {"h": torch.zeros(n, 1), "z": torch.zeros(n, 2)}

    def features(self, state: Any) -> torch.Tensor:
        return torch.cat([state["h"], state["z"]], -1)

    def step(self, state: Any, action: torch.Tensor, generator: torch.Generator) -> Any:
        h = state["h"] + 1
        noise = torch.rand(len(h), 2, generator=generator)
        earned = action[:, 1] * h[:, 0]
        return {"h": h, "z": noise}, Outcome(earned, earned + self.prize, torch.full((len(h),), self.chance))


class Named:
    """Another model: a whole number, two keys of (2, 2) numbers and a flag; features are none of them as they are."""

    size, observation = 3, Observation.of((1,), np.float32)

    def initial(self, n: int) -> dict[str, torch.Tensor]:
        return {
            "age": torch.zeros(n, dtype=torch.int64), "keys": torch.zeros(n, 2, 2), "even": torch.ones(n, dtype=torch.bool),
        }  # fmt: skip

    def features(self, state: Any) -> torch.Tensor:
        return torch.cat([state["keys"].sum(1), state["age"].float().unsqueeze(1) * 10 + state["even"].unsqueeze(1)], 1)

    def step(self, state: Any, action: torch.Tensor, generator: torch.Generator) -> Any:
        age = state["age"] + 1
        keys = torch.stack([state["keys"][:, 1], torch.rand(len(age), 2, generator=generator)], 1)
        return {"age": age, "keys": keys, "even": age % 2 == 0}, Outcome(age.float(), age.float(), torch.full((len(age),), 0.8))

    def observe(self, obs: Any, action: Any, is_first: Any, state: Any, generator: Any = None) -> Any:
        age = torch.where(is_first, 0, state["age"]) + 1
        keys = torch.stack([state["keys"][:, 1].masked_fill(is_first[:, None], 0.0), obs.expand(-1, 2)], 1)
        after = {"age": age, "keys": keys, "even": age % 2 == 0}
        return self.features(after), after


def imagination(model: Any, n: int, **options: Any) -> WorldModelEnv:
    starts = {"h": np.array([[0.0], [10.0]]), "z": np.zeros((2, 2))}
    return WorldModelEnv(model, gymnasium.spaces.Discrete(2), starts, n, **options)


def test_a_dream_is_the_models_steps_and_is_cut_at_the_horizon() -> None:
    env = imagination(Counted(), 64, seed=1, horizon=3)
    begun = env.obs[:, 0, 0].copy()
    assert set(begun.tolist()) == {0.0, 10.0}
    for t in range(1, 4):
        action = np.full((64, 1), t % 2)
        step = env.step(action)
        assert np.array_equal(step.reward[:, 0], (begun + t) * (t % 2)) and not step.terminated.any()
        assert step.truncated.all() == (t == 3) and step.truncated.any() == (t == 3)
        assert np.array_equal(step.final_obs[:, 0, 0], begun + t)
    assert set(step.obs[:, 0, 0].tolist()) == {0.0, 10.0}  # the next episodes
    ended = env.episodes()
    assert np.array_equal(ended.return_[:, 0], 2 * begun + 4) and (ended.length == 3).all()
    with pytest.raises(ValueError, match="outside"):
        env.step(np.full((64, 1), 2))
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(64, np.int64))


def test_termination_has_the_models_probability_and_differs_from_truncation() -> None:
    env = imagination(Counted(0.7), 4000, seed=1, horizon=2)
    first = env.step(np.zeros((4000, 1), np.int64))
    assert abs(first.terminated.mean() - 0.3) < 0.03 and not first.truncated.any()
    gone = first.terminated.copy()
    second = env.step(np.zeros((4000, 1), np.int64))
    assert not (second.terminated & second.truncated).any()
    assert np.array_equal(second.truncated, ~gone & ~second.terminated)
    assert not imagination(Counted(0.0), 8).step(np.zeros((8, 1), np.int64), autoreset=False).obs[:, 0, 0].min() < 1


def test_who_ends_earns_what_the_model_says_of_an_end() -> None:
    step = imagination(Counted(0.7, prize=5.0), 400, seed=1).step(np.ones((400, 1), np.int64))
    earned = step.reward[:, 0] - step.final_obs[:, 0, 0]  # beside what action 1 pays anywhere
    assert np.array_equal(earned, 5.0 * step.terminated) and 0 < step.terminated.sum() < 400


def test_dreams_go_on_exactly() -> None:
    one, two = (imagination(Counted(0.8), 16, seed=seed, horizon=4) for seed in (1, 2))
    action = np.ones((16, 1), np.int64)
    for _ in range(3):
        one.step(action)
    two.set_state(one.get_state())
    assert np.array_equal(one.obs, two.obs)
    for _ in range(6):
        a, b = one.step(action), two.step(action)
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        assert all(np.array_equal(x, y) for x, y in zip(one.episodes(), two.episodes(), strict=True))
    with pytest.raises(ValueError, match="missing"):
        two.set_state({"h": one.get_state()["h"]})


def test_states_of_any_names_and_types_are_dreamt_from() -> None:
    model = Named()
    starts = {
        "age": np.array([[3, 4]]), "keys": np.arange(8.0).reshape(1, 2, 2, 2), "even": np.array([[False, True]]),
    }  # fmt: skip
    one, two = (WorldModelEnv(model, gymnasium.spaces.Discrete(2), starts, 16, seed=seed, horizon=5) for seed in (1, 2))
    begun = {(2.0, 4.0, 30.0), (10.0, 12.0, 41.0)}
    assert set(map(tuple, one.obs[:, 0].tolist())) == begun
    action = np.zeros((16, 1), np.int64)
    for _ in range(3):
        one.step(action)
    kept = one.get_state()
    assert kept["age"].dtype == np.int64 and kept["even"].dtype == np.bool_ and kept["keys"].shape == (16, 2, 2)
    two.set_state(kept)
    for _ in range(4):
        a, b = one.step(action), two.step(action)
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    for fault, words in (
        ({"age": starts["age"]}, "states of this model"),
        ({**starts, "age": np.array([3])}, "must hold equally many"),
    ):
        with pytest.raises(ValueError, match=words):
            WorldModelEnv(model, gymnasium.spaces.Discrete(2), fault, 2)
    with pytest.raises(ValueError, match="no states"):
        WorldModelEnv(model, gymnasium.spaces.Discrete(2), {name: part[:, :0] for name, part in starts.items()}, 2)


def test_awake_carries_a_state_of_any_names() -> None:
    env = WorldModelEnv(Named(), gymnasium.spaces.Discrete(2), {name: p.numpy() for name, p in Named().initial(1).items()}, 3)
    awake = WorldModelPolicy(Named(), make_agent("random", {}, env, 0), 2)
    carry: Any = awake.initial(3)
    for t in range(1, 4):
        _, carry, _ = awake.act(np.full((3, 1, 1), t, np.float32), carry, "sample")
        assert carry["age"].tolist() == [t] * 3 and carry["age"].dtype == np.int64 and carry["even"].dtype == np.bool_
        assert (carry["keys"][:, 1] == t).all() and (carry["keys"][:, 0] == t - 1).all()
    carry["first"][1] = True
    _, carry, _ = awake.act(np.full((3, 1, 1), 9, np.float32), carry, "sample")
    assert carry["age"].tolist() == [4, 1, 4] and carry["keys"][1, 0].tolist() == [0.0, 0.0]

    class Bad(Named):
        def initial(self, n: int) -> dict[str, torch.Tensor]:
            return {"first": torch.zeros(n)}

    with pytest.raises(ValueError, match="a name that is reserved"):
        WorldModelPolicy(Bad(), make_agent("random", {}, env, 0), 2).initial(1)


@pytest.mark.parametrize("name,options", [("ppo", {}), ("dqn", {"learning_starts": 32}), ("sb3-ppo", {"num_steps": 8})])
def test_any_agent_trains_asleep_and_acts_awake(name: str, options: dict[str, Any]) -> None:
    world = make("frozenlake", {}, num_envs=4)
    model = RSSM(RSSM.Config(**SMALL), Observation.of((7, 7), np.uint8, 3), 4, 0)
    starts = {part: array.numpy() for part, array in model.initial(1).items()}
    env = WorldModelEnv(model, world.action_space, starts, num_envs=8, horizon=5)
    agent = make_agent(name, options, env, seed=0)
    before = {key: array.copy() for key, array in agent.state_dict().items()}
    seen: list[dict[str, float]] = []
    fit(agent, env, 6, seen.append)
    assert sum(row["episodes"] for row in seen) > 0
    assert any(not np.array_equal(before[key], array) for key, array in agent.state_dict().items())
    awake = WorldModelPolicy(model, agent, 4)
    with pytest.raises(ValueError, match="train the agent in a WorldModelEnv"):
        awake.learn(None, 0.0)  # type: ignore[arg-type]
    result = run_episodes(awake, "frozenlake", {}, 8, 0, "greedy", lines=False)
    assert (result.lengths > 0).all()
    world.close()


@pytest.mark.parametrize("kind", ["mdn-gru", "tokens"])
def test_every_model_is_dreamt_in_from_real_steps(kind: str) -> None:
    """Learned from a world's steps, imagined in from them, awake in the world."""
    from gumdrop.core_ml.component import components
    from gumdrop.core_ml.data.sequences import SequenceReplay

    cls = components("model")[kind].cls  # type: ignore[arg-type]
    small = {"deter": 8, "size": 3} if kind == "mdn-gru" else {"positions": 2, "width": 8, "heads": 2, "window": 3}
    model = cls(cls.Config(hidden=(8,), **small), Observation.of((7, 7), np.uint8, 3), 4, 0)
    world, rng = make("frozenlake", {}, num_envs=4, seed=0), np.random.default_rng(0)
    replay = SequenceReplay(200, (7, 7), np.uint8)
    for _ in range(20):
        obs, action = world.obs[:, 0].copy(), rng.integers(4, size=(4, 1))
        step = world.step(action)
        replay.add(obs[None], action.T, step.reward.T, step.terminated[None], step.truncated[None])
    model.update(replay.draw(rng, 8, 4), torch.Generator().manual_seed(0))
    starts = {part: array.numpy() for part, array in model.posterior(replay.draw(rng, 8, 4)).items()}
    env = WorldModelEnv(model, world.action_space, starts, num_envs=8, horizon=5, seed=1)
    agent = make_agent("ppo", {"num_steps": 8}, env, seed=0)
    fit(agent, env, 2)
    kept = env.get_state()
    again = WorldModelEnv(model, world.action_space, starts, num_envs=8, horizon=5, seed=2)
    again.set_state(kept)
    for _ in range(6):
        a, b = (e.step(np.ones((8, 1), np.int64)) for e in (env, again))
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    result = run_episodes(WorldModelPolicy(model, agent, 4), "frozenlake", {}, 4, 0, "greedy", lines=False)
    assert (result.lengths > 0).all()
    world.close()


def test_awake_sees_what_the_model_makes_of_the_episode() -> None:
    """Beliefs in the carry are those of one pass over the episode, and begin anew with the next one."""
    from gumdrop.agents.protocol import restart

    model = RSSM(RSSM.Config(**SMALL), Observation.of((7, 7), np.uint8, 3), 4, 0)
    world = make("frozenlake", {"time_limit": 4}, num_envs=3, seed=0)
    awake = WorldModelPolicy(model, make_agent("random", {}, world, 0), 4)
    carry, obs, actions, firsts, held = awake.initial(3), [], [], [], []
    first = np.ones(3, np.bool_)
    for _ in range(10):
        obs.append(world.obs[:, 0].copy())
        firsts.append(first)
        action, carry, _ = awake.act(world.obs, carry, "sample")
        held.append(carry["h"].copy())
        actions.append(action[:, 0])
        step = world.step(action)
        first = step.terminated | step.truncated
        restart(awake, carry, step)
    before = np.concatenate([np.zeros((1, 3), np.int64), np.stack(actions)[:-1]])
    shown = [torch.from_numpy(np.stack(part, 1)) for part in (obs, np.eye(4, dtype=np.float32)[before], firsts)]
    with torch.no_grad():
        beliefs, _ = model.sequence(*shown, model.initial(3))
    np.testing.assert_allclose(np.stack(held, 1), beliefs[..., :8].numpy(), atol=1e-5)
    assert np.stack(firsts)[1:].any()


def test_the_dreamer_acts_on_the_beliefs_of_its_model() -> None:
    env = make("frozenlake", {}, num_envs=3, seed=0)
    agent: Any = make_agent("dreamer", {"model": {"name": "rssm", **SMALL}}, env, 0)
    awake = WorldModelPolicy(agent.model, make_agent("random", {}, env, 0), 4)
    one, two = agent.initial(3), awake.initial(3)
    for _ in range(5):
        action, one, _ = agent.act(env.obs, one, "sample")
        two["action"] = one["action"][:, 0] * 0 + two["action"]
        _, two, _ = awake.act(env.obs, two, "sample")
        np.testing.assert_array_equal(one["h"][:, 0], two["h"])
        two["action"] = action[:, 0]
        env.step(action)


def test_an_untrained_model_stays_as_it_was() -> None:
    from gumdrop.experiments.run.collect.host import Collector

    env = make("frozenlake", {}, num_envs=4, seed=0)
    options = {"learning_starts": 0, "updates": 2, "num_steps": 8, "length": 4}
    for kind in ("untrained", "trained"):
        agent: Any = make_agent(
            "dreamer", {**options, "model": {"name": "rssm", **SMALL, "untrained": kind == "untrained"}}, env, 0
        )
        model, behaviour = agent.model.state_dict(), agent.actor_critic.state_dict()
        collector = Collector(env, agent)
        collector.begin(env.obs)
        agent.learn(collector.rollout(8), 0.0)
        same = all(np.array_equal(array, model[name]) for name, array in agent.model.state_dict().items())
        assert same == (kind == "untrained")
        assert any(not np.array_equal(array, behaviour[name]) for name, array in agent.actor_critic.state_dict().items())


def test_the_dreamer_dreams_as_often_and_as_freely_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """`imagined trajectories` rows at once; weights of entropy and learning rates that fall linearly with the run."""
    from gumdrop.experiments.run.collect.host import Collector

    env = make("frozenlake", {}, num_envs=4, seed=0)
    options = {"learning_starts": 0, "updates": 1, "num_steps": 8, "length": 4, "model": {"name": "rssm", **SMALL}}
    told = {"imagined_batch_size": 10, "ent_coef": 0.4, "ent_coef_final": 0.2, "learning_rate_final": 0.5}
    for more, rows, want in ((told, 10, (0.75, 0.3)), ({}, 32 * 4, (1.0, 3e-3))):
        agent: Any = make_agent("dreamer", {**options, **more}, env, 0)
        seen: list[Any] = []
        monkeypatch.setattr(agent.actor_critic, "update", lambda imagined, *rest, s=seen: s.append((imagined, rest)) or {})  # type: ignore[misc]
        collector = Collector(env, agent)
        collector.begin(env.obs)
        agent.learn(collector.rollout(8), 0.5)
        ((imagined, rest),) = seen
        assert imagined.reward.shape == (15, rows)
        assert rest == pytest.approx(want)


def test_the_dreamer_says_what_it_cannot_do() -> None:
    world = make("navigation", {}, num_envs=1)
    with pytest.raises(ValueError, match="Discrete"):
        make_agent("dreamer", {}, world, 0)
    lake = make("frozenlake", {}, num_envs=1)
    with pytest.raises(ValueError, match="did you mean deter"):
        make_agent("dreamer", {"model": {"name": "rssm", "detre": 3}}, lake, 0)
