"""PPO's mathematics against arrays worked out by hand and slow independent versions; its options; that it learns."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from gumdrop.agents.deep.parts import scheduled
from gumdrop.agents.registry import make_agent
from gumdrop.core_ml.distributions import Categorical, Gaussian
from gumdrop.core_ml.maths.losses import ppo_policy, value_error
from gumdrop.core_ml.maths.normalise import RunningNormaliser
from gumdrop.core_ml.maths.returns import explained_variance, gae
from gumdrop.core_ml.optim.adam import FlatAdam
from gumdrop.core_ml.optim.parameters import orthogonal
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.episodes import run_episodes


def test_gae_by_hand() -> None:
    """gamma = lambda = 1/2; step 1 terminates, step 3 is truncated (its next state is worth 8)."""
    reward, value = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    next_value = np.array([20.0, 99.0, 40.0, 8.0, 60.0])
    terminated = np.array([False, True, False, False, False])
    done = np.array([False, True, False, True, False])
    got = gae(reward, value, next_value, terminated, done, 0.5, 0.5)
    # deltas: 1+10-10=1; 2-20=-18; 3+20-30=-7; 4+4-40=-32; 5+30-50=-15
    np.testing.assert_allclose(got, [1 - 18 / 4, -18, -7 - 32 / 4, -32, -15])
    assert gae(*(x.astype(np.float32) for x in (reward, value, next_value)), terminated, done, 0.5, 0.5).dtype == np.float32


def test_gae_against_the_definition() -> None:
    """A_t = sum_l (gamma lambda)^l delta_{t+l} up to the end of the episode, written as the double sum."""
    rng = np.random.default_rng(0)
    t, n, gamma, lam = 9, 4, 0.9, 0.7
    reward, value, next_value = rng.normal(size=(3, t, n))
    terminated, truncated = rng.random((2, t, n)) < 0.2
    done = terminated | truncated
    want = np.zeros((t, n))
    for i in range(n):
        for start in range(t):
            weight = 1.0
            for k in range(start, t):
                future = 0.0 if terminated[k, i] else gamma * next_value[k, i]
                want[start, i] += weight * (reward[k, i] + future - value[k, i])
                weight *= gamma * lam
                if done[k, i]:
                    break
    np.testing.assert_allclose(gae(reward, value, next_value, terminated, done, gamma, lam), want, rtol=1e-12)


def test_policy_loss_by_hand() -> None:
    """Ratios 2, 0.5, 1.1 with clip 0.2: a gain is cut at 1.2, a loss is not; the third is inside."""
    old = torch.zeros(3)
    new = torch.tensor([2.0, 0.5, 1.1]).log()
    loss, kl, clipped = ppo_policy(new, old, torch.tensor([1.0, -1.0, 3.0]), 0.2)
    # -(min(2, 1.2) + min(-0.5, -0.8) + 3.3)
    assert float(loss) == pytest.approx(-(1.2 - 0.8 + 3.3))
    assert float(kl) == pytest.approx(sum(r - 1 - math.log(r) for r in (2.0, 0.5, 1.1)))
    assert float(clipped) == 2


def test_value_error_by_hand() -> None:
    value, old, target = torch.tensor([3.0, 3.0]), torch.tensor([0.0, 2.9]), torch.tensor([4.0, 1.0])
    assert float(value_error(value, old, target, None)) == pytest.approx(0.5 * (1 + 4))
    # moved values: 0.5 and 3.0 -> errors max(1, 12.25), max(4, 4)
    assert float(value_error(value, old, target, 0.5)) == pytest.approx(0.5 * (12.25 + 4))


def test_distributions_against_torch() -> None:
    g = torch.Generator().manual_seed(0)
    logits, mean, log_std = (
        torch.randn(500, 4, generator=g),
        torch.randn(500, 3, generator=g),
        torch.randn(3, generator=g),
    )
    theirs = torch.distributions.Categorical(logits=logits)
    ours = Categorical.of(logits)
    action = ours.sample(g)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    normal = torch.distributions.Normal(mean, log_std.exp())
    gaussian = Gaussian(mean, log_std)
    x = gaussian.sample(g)
    torch.testing.assert_close(gaussian.log_prob(x), normal.log_prob(x).sum(-1))
    torch.testing.assert_close(gaussian.entropy(), normal.entropy().sum(-1))
    one = Categorical(torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(200_000, 4))
    share = torch.bincount(one.sample(g), minlength=4) / 200_000
    np.testing.assert_allclose(share, [0.1, 0.2, 0.3, 0.4], atol=5 * math.sqrt(0.25 / 200_000))


def test_adam_against_torch() -> None:
    torch.manual_seed(0)  # the reference module's initialisation only
    ours, theirs = (torch.nn.Linear(5, 3).double() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    mine, reference = FlatAdam(ours, eps=1e-5), torch.optim.Adam(theirs.parameters(), lr=0.01, eps=1e-5)
    for step in range(20):
        x = torch.linspace(-1, 1, 10, dtype=torch.float64).view(2, 5) * (step + 1)
        for module, zero in ((ours, mine.zero_grad), (theirs, reference.zero_grad)):
            zero()
            module(x).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        mine.step(0.01, 0.5)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)  # scale by norm + 1e-6, as torch's own clipping


def test_normaliser_equals_numpy_and_starts_as_identity() -> None:
    rows = np.random.default_rng(0).normal(3, 5, (1000, 2)).astype(np.float32)
    normaliser = RunningNormaliser(2)
    assert normaliser.scale() is None
    for part in np.array_split(rows, 7):
        normaliser.update(part)
    scale = normaliser.scale()
    assert scale is not None and scale.dtype == np.float32
    np.testing.assert_allclose(scale[0], rows.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(scale[1], 1 / rows.std(0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (4, 2, 3, 3), (1, 7)], ids=str)
def test_initial_weights_are_orthogonal_and_uniform(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    rows, columns = shape[0], math.prod(shape[1:])
    found = np.stack([orthogonal(shape, 2.0, rng).reshape(rows, columns) for _ in range(2000)])
    small = found if rows <= columns else found.transpose(0, 2, 1)
    unit = np.tile(4.0 * np.eye(small.shape[1]), (2000, 1, 1))
    np.testing.assert_allclose(small @ small.transpose(0, 2, 1), unit, atol=1e-12)
    # Uniform: no entry is biased. Var = gain^2 / long side.
    bound = 5 * 2.0 / math.sqrt(max(rows, columns)) / math.sqrt(2000)
    assert np.abs(found.mean(0)).max() < bound


def test_explained_variance_and_schedule() -> None:
    target = np.array([1.0, 2.0, 3.0])
    assert explained_variance(target, target) == 1
    assert explained_variance(np.zeros(3), target) == pytest.approx(0)
    assert explained_variance(target, np.ones(3)) == 0
    assert [scheduled(s, 0.5) for s in ("constant", "linear", "cosine")] == pytest.approx([1, 0.5, 0.5])
    assert scheduled("linear", 1.0) == 0


def learned(options: dict[str, Any], **env: Any) -> tuple[Any, dict[str, float]]:
    torch.set_num_threads(1)
    world = make("maze", {"layout": "two-rooms", "time_limit": 40, **env}, num_envs=16, seed=0)
    agent = make_agent("ppo", {"num_steps": 16, "update_epochs": 2, "num_minibatches": 2, **options}, world, 0)
    collector = Collector(world, agent)
    collector.begin(world.reset(0))
    metrics = agent.learn(collector.rollout(16), 0.0)
    return agent, metrics


@pytest.mark.parametrize(
    "options",
    [
        {"network": "cnn"}, {"network": "cnn", "hidden": (32, 16)}, {"shared_trunk": False}, {"activation": "relu"},
        {"value_clip": 0.2}, {"normalise_advantage": False}, {"normalise_observation": True}, {"schedule": "cosine"},
        {"hidden": (32,)}, {"max_grad_norm": 0}, {"ent_coef_final": 0.0}, {"num_minibatches": 1}, {"num_minibatches": 1000},
    ],
    ids=str,
)  # fmt: skip
def test_every_option_trains_and_survives_a_round_trip(options: dict[str, Any]) -> None:
    agent, metrics = learned(options)
    assert all(math.isfinite(v) for v in metrics.values())
    env = make("maze", {"layout": "two-rooms", "time_limit": 40}, num_envs=4)
    fresh = make_agent("ppo", agent.config.model_dump(), env, 99)
    fresh.load_state_dict(agent.state_dict())
    for _ in range(2):  # the random state came along, too
        a, b = (x.act(env.obs, None, "sample") for x in (agent, fresh))
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[2]["value"], b[2]["value"])


def test_chunks_change_speed_not_gradients() -> None:
    one, _ = learned({"chunk": 16, "learner": "torch"})
    all_at_once, _ = learned({"chunk": 100_000, "learner": "torch"})
    for name, array in one.state_dict().items():
        if name.startswith("model."):
            np.testing.assert_allclose(array, all_at_once.state_dict()[name], atol=2e-4)


@pytest.mark.parametrize(
    ("world", "options"),
    [
        ("maze", {}), ("maze", {"shared_trunk": False, "activation": "relu", "hidden": (17, 32, 8)}),
        ("maze", {"value_clip": 0.1}),
        ("maze", {"normalise_observation": True, "normalise_advantage": False}), ("point-navigation", {}),
        ("point-maze", {"shared_trunk": False}), ("candy-race", {}),
    ],
    ids=str,
)  # fmt: skip
def test_both_learners_take_the_same_step(world: str, options: dict[str, Any]) -> None:
    """With one minibatch the order of rows means nothing: the same rollout leads to the same parameters, up to rounding."""
    env = make(world, {"time_limit": 7}, num_envs=24, seed=3)
    chosen = {"num_minibatches": 1, "update_epochs": 3, "num_steps": 20, **options}
    torchs, fused = (make_agent("ppo", {**chosen, "learner": name}, env, 5) for name in ("torch", "fused"))
    collector = Collector(env, torchs)
    collector.begin(env.reset(1))
    for update in range(3):
        batch = collector.rollout(20)
        assert len(batch.final_obs)  # truncations bootstrap
        before = torchs.state_dict()
        fused.load_state_dict(before)
        theirs, ours = torchs.learn(batch, update / 3), fused.learn(batch, update / 3)
        assert theirs.keys() == ours.keys()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
        after, mine = torchs.state_dict(), fused.state_dict()
        for name in after:
            if name.startswith("model."):
                moved = np.linalg.norm(after[name] - before[name])
                assert np.linalg.norm(mine[name] - after[name]) <= 1e-3 * moved + 1e-7, name
        assert mine["optimiser.steps"] == after["optimiser.steps"] == 3 * (update + 1)


def test_who_learns_is_said_and_a_wish_that_cannot_be_met_is_refused() -> None:
    env = make("maze", num_envs=4)
    assert make_agent("ppo", {}, env, 0).note.startswith("learner: fused kernels, 1 thread")  # type: ignore[attr-defined]
    assert make_agent("ppo", {"learner": "torch"}, env, 0).note == "learner: torch"  # type: ignore[attr-defined]
    wide = make_agent("ppo", {"hidden": (512,)}, env, 0)
    assert wide.note.startswith("learner: torch (hidden widths (512,)")  # type: ignore[attr-defined]
    for options in ({"hidden": (512,)}, {"hidden": (8, 8, 8, 8)}, {"network": "cnn"}):
        with pytest.raises(ValueError, match="learner=fused cannot do this network") as error:
            make_agent("ppo", {**options, "learner": "fused"}, env, 0)
        assert "\n" not in str(error.value)


def test_target_kl_stops_the_epochs() -> None:
    _, metrics = learned({"update_epochs": 10, "target_kl": 1e-9, "learning_rate": 0.01})
    assert metrics["update_epochs"] == 1
    _, metrics = learned({"update_epochs": 3, "target_kl": 1e9})
    assert metrics["update_epochs"] == 3


def test_truncation_bootstraps_and_termination_does_not() -> None:
    """In a world that pays 1 per step for ever, cut at 4 steps, V must tend to 1 / (1 - gamma) = 2, not to the cut sum."""
    options = {"layout": "S.G", "goal_ends": False, "step_reward": 1.0, "time_limit": 4}
    torch.set_num_threads(1)
    env = make("maze", options, num_envs=16, seed=0)
    agent = make_agent(
        "ppo", {"gamma": 0.5, "num_steps": 16, "learning_rate": 0.01, "schedule": "constant", "vf_coef": 1.0}, env, 0
    )
    collector = Collector(env, agent)
    collector.begin(env.reset(0))
    for _ in range(60):
        agent.learn(collector.rollout(16), 0.0)
    value = agent.act(env.obs, None, "sample")[2]["value"]
    np.testing.assert_allclose(value, 2.0, atol=0.1)  # the sum cut at four steps is at most 1.875, 1.46 on average


@pytest.mark.parametrize("learner", ["torch", "fused"])
def test_it_learns_frozenlake_to_its_exact_optimum(learner: str) -> None:
    """Oracle: finite-horizon dynamic programming says what the best policy gets on slippery FrozenLake.

    With this much exploration ten of ten seeds got .717 to .725; with a quarter of the environments and of the entropy a
    quarter of them stay at .6 or .5, where the policy has settled too soon, with either learner.
    """
    torch.set_num_threads(1)
    options = {"layout": "frozenlake4", "slip": 2 / 3, "view": 0, "time_limit": 100}
    settings = {"learning_rate": 3e-3, "ent_coef": 0.02, "ent_coef_final": 0.0, "learner": learner}
    env = make("maze", options, num_envs=256, seed=0)
    agent = make_agent("ppo", settings, env, 0)
    collector = Collector(env, agent)
    collector.begin(env.reset(0))
    for update in range(60):
        agent.learn(collector.rollout(32), update / 60)
    result = run_episodes(agent, "maze", options, 2000, 7)
    assert result.optimal is not None and result.random is not None
    assert result.optimal.mean() == pytest.approx(0.7442, abs=1e-4)
    assert result.returns.mean() > 0.9 * result.optimal.mean()


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_box_actions_of_any_shape(shape: tuple[int, ...]) -> None:
    """Before the first step of the optimiser the policy is the one that acted: KL and clip fraction are zero."""
    from gumdrop.agents.deep.ppo import PPO
    from gumdrop.agents.protocol import Rollout, Spaces

    box = gymnasium.spaces.Box
    spaces = Spaces(box(-1, 1, (3,), np.float32), box(-1, 1, shape, np.float32), 1)
    agent = PPO(PPO.Config(update_epochs=1, num_minibatches=1), spaces, 0)
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(4, 5, 1, 3)).astype(np.float32)
    steps = [agent.act(o, None, "sample") for o in obs]
    extras = {k: np.stack([s[2][k] for s in steps]) for k in steps[0][2]}
    action = np.stack([s[0] for s in steps])
    assert action.shape == (4, 5, 1, *shape)
    no = np.zeros((4, 5), np.bool_)
    reward = rng.normal(size=(4, 5, 1)).astype(np.float32)
    metrics = agent.learn(Rollout(obs, action, reward, no, no, obs[0], obs[:0, 0], extras), 0.0)
    assert metrics["kl"] == pytest.approx(0, abs=1e-6) and metrics["clip_fraction"] == 0


def test_continuous_actions_are_clipped_for_the_world_only() -> None:
    env = make("Pendulum-v1", num_envs=2, seed=0)
    agent = make_agent("ppo", {"num_steps": 8}, env, 0)
    assert isinstance(env.action_space, gymnasium.spaces.Box)
    agent.learner.parameters.views(agent.learner.parameters.flat)["log_std"][:] = 3.0  # type: ignore[attr-defined]
    action, _, extras = agent.act(env.obs, None, "sample")
    assert (np.abs(action) <= 2).all() and (np.abs(extras["raw_action"]) > 2).any()
