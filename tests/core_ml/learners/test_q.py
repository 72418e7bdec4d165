"""Q-learning's targets and losses by hand; the fused kernel and torch's learner against float64 autograd."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gumdrop.core_ml.data.transitions import Replay, Sample
from gumdrop.core_ml.learners.fused import FusedActorCritic, FusedQ, MLPSpec
from gumdrop.core_ml.learners.torch_q import TorchQ
from gumdrop.core_ml.maths.losses import huber, quantile_huber, td_target
from gumdrop.core_ml.nets.layers import NoisyLinear
from gumdrop.core_ml.nets.q_network import QNetwork, q_network

Array = Any
pytestmark = pytest.mark.xdist_group("fused")  # one worker compiles, the others would wait


def test_targets_by_hand() -> None:
    """Rows: a plain step, a terminated one. The target network prefers action 1, the learning network action 0."""
    following = torch.tensor([[[2.0], [5.0]], [[1.0], [3.0]]])
    chooser = torch.tensor([[[9.0], [8.0]], [[9.0], [8.0]]])
    return_, discount = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0])
    assert td_target(return_, discount, following, following).tolist() == [[1 + 2.5], [2]]
    assert td_target(return_, discount, following, chooser).tolist() == [[1 + 1], [2]]
    quantiles = torch.tensor([[[0.0, 10.0], [4.0, 5.0]]])  # means 5 and 4.5
    assert td_target(torch.tensor([1.0]), torch.tensor([0.1]), quantiles, quantiles).tolist() == [[1, 2]]


def test_huber_by_hand() -> None:
    error = torch.tensor([0.5, -3.0, 1.0], requires_grad=True)
    loss = huber(error)
    torch.testing.assert_close(loss, torch.tensor([0.125, 2.5, 0.5]))
    (grad,) = torch.autograd.grad(loss.sum(), error)
    assert grad.tolist() == [0.5, -1, 1]


def test_quantile_huber_by_hand_and_by_loops() -> None:
    """Two quantiles (tau 1/4, 3/4) at 0 and 1, goals -0.5 and 3.

    u = goal - quantile: quantile 0: -0.5, 3; quantile 1: -1.5, 2. huber: .125, 2.5; 1, 1.5.
    weights: |1/4 - 1|, 1/4; |3/4 - 1|, 3/4. Sum of means: (.09375 + .625) / 2 + (.25 + 1.125) / 2.
    """
    found = quantile_huber(torch.tensor([[0.0, 1.0]]), torch.tensor([[-0.5, 3.0]]))
    assert float(found) == pytest.approx((0.09375 + 0.625) / 2 + (0.25 + 1.125) / 2)
    rng = np.random.default_rng(0)
    quantile, goal = rng.normal(size=(4, 5)), 2 * rng.normal(size=(4, 3))
    expected = np.zeros(4)
    for b in range(4):
        for i in range(5):
            for j in range(3):
                u = goal[b, j] - quantile[b, i]
                h = 0.5 * u * u if abs(u) <= 1 else abs(u) - 0.5
                expected[b] += abs((2 * i + 1) / 10 - (u < 0)) * h / 3
    np.testing.assert_allclose(quantile_huber(torch.from_numpy(quantile), torch.from_numpy(goal)), expected)


def test_quantiles_of_a_distribution_are_found() -> None:
    """Where the loss is least, quantile i is near the tau_i-quantile: uniform numbers on [0, 100], far apart for Huber's 1."""
    quantile = torch.full((1, 4), 50.0, requires_grad=True)
    goal = torch.linspace(0, 100, 1001)[None]
    optimiser = torch.optim.Adam([quantile], 1.0)
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 1.0 / (1 + step / 40)
        optimiser.zero_grad()
        quantile_huber(quantile, goal).sum().backward()
        optimiser.step()
    np.testing.assert_allclose(quantile.detach()[0], [12.5, 37.5, 62.5, 87.5], atol=1.0)


def test_dueling_by_hand() -> None:
    """One input, one hidden unit a stream: V = 3 x, A = (x, 5 x) less their mean 3 x: Q = (x, 5 x) + 0."""
    model = QNetwork((1,), 2, "mlp", (1,), 1, "relu", True, False, 0)
    assert model.value is not None
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.value[0].weight.fill_(1.0)
        model.value[2].weight.fill_(7.0)
        model.advantage[0].weight.fill_(1.0)
        model.advantage[2].weight.copy_(torch.tensor([[1.0], [5.0]]))
    assert model(torch.tensor([[2.0]]))[0, :, 0].tolist() == [14 + 2 - 6, 14 + 10 - 6]
    many = QNetwork((3,), 4, "mlp", (8, 6), 1, "relu", True, False, 5)
    q = many(torch.randn(7, 3))
    features = many.trunk(torch.randn(7, 3))
    assert q.shape == (7, 4, 5) and features.shape == (7, 8)
    value = many.value(features).view(7, 1, 5)  # type: ignore[misc]
    advantage = many.advantage(features).view(7, 4, 5)
    expected = value + advantage - advantage.mean(1, keepdim=True)
    torch.testing.assert_close(expected.mean(1), value[:, 0])


def test_a_noisy_layer_is_the_layer_with_the_noise_in_its_weights() -> None:
    """Row by row: w = mu + sigma eps_out eps_in^T, as in the paper, made in full; and the same gradient."""
    torch.manual_seed(0)
    layer = NoisyLinear(5, 3)
    with torch.no_grad():
        layer.sigma_weight.normal_()
        layer.sigma_bias.normal_()
    x, e_in, e_out = torch.randn(4, 5), torch.randn(4, 5), torch.randn(4, 3)
    found = layer.noisy(x, e_in, e_out)
    rows = []
    for b in range(4):
        weight = layer.weight + layer.sigma_weight * torch.outer(e_out[b], e_in[b])
        rows.append(weight @ x[b] + layer.bias + layer.sigma_bias * e_out[b])
    torch.testing.assert_close(found, torch.stack(rows))
    for a, b in zip(
        torch.autograd.grad(found.square().sum(), list(layer.parameters())),
        torch.autograd.grad(torch.stack(rows).square().sum(), list(layer.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dueling", [False, True])
def test_noise_moves_every_layer_and_its_size_is_right(dueling: bool) -> None:
    model = QNetwork((3,), 2, "mlp", (8, 6), 1, "relu", dueling, True, 4)
    learner = TorchQ(q_network((3,), 2, "mlp", (8, 6), 1, "relu", dueling, True, 4))
    learner.initialise(np.random.default_rng(0))
    obs, rng = np.ones((2, 3), np.float32), np.random.default_rng(1)
    noise = rng.standard_normal((2, learner.noises), np.float32)
    quiet, loud = learner.q(obs), learner.q(obs, noise)
    assert model.noises == learner.noises and np.abs(loud[0] - loud[1]).max() > 0.01
    np.testing.assert_allclose(quiet[0], quiet[1], rtol=1e-6)
    np.testing.assert_allclose(learner.q(obs, np.zeros_like(noise)), quiet, rtol=1e-6)
    f = learner.model(torch.from_numpy(obs), torch.from_numpy(noise))
    f[:, 0].sum().backward()
    for name, p in learner.model.named_parameters():
        assert p.grad is not None and bool((p.grad != 0).any()), name
    # uniform means within 1 / sqrt(inputs), deviations 0.5 / sqrt(inputs)
    first = next(m for m in learner.model.modules() if isinstance(m, NoisyLinear))
    assert float(first.weight.detach().abs().max()) <= 3**-0.5
    assert float(first.sigma_bias.detach()[0]) == pytest.approx(0.5 * 3**-0.5)


class Case:
    """A replay with random content, minibatches from it, and a network whose target network is another."""

    def __init__(self, spec: MLPSpec, rows: int = 150, parts: int = 1, bytes_: bool = False, frozen: bool = True) -> None:
        rng = np.random.default_rng(0)
        self.spec, self.replay = spec, Replay(300, spec.inputs, np.uint8 if bytes_ else np.float32)
        for obs in (self.replay.obs, self.replay.next_obs):
            obs[:] = rng.integers(0, 4, obs.shape) if bytes_ else rng.normal(size=obs.shape)
        row, next_row = rng.integers(0, 300, (2, parts, rows))
        action = rng.integers(0, spec.actions, (parts, rows))
        # Returns lie a good way above the values: where errors cancel out, a relative error says nothing of the kernel.
        return_ = (1.5 * np.abs(rng.normal(size=(parts, rows))) + 0.3).astype(np.float32)
        discount = (0.9 * (rng.random((parts, rows)) < 0.8)).astype(np.float32)
        self.sample = Sample(row, next_row, action, return_, discount, rng.random((parts, rows), np.float32) + 0.5)
        self.fused, self.reference = FusedQ(spec, frozen), TorchQ(q_network(*self.arguments), frozen)
        for learner in (self.fused, self.reference):
            learner.initialise(np.random.default_rng(1))
            noise = np.random.default_rng(2).standard_normal((2, spec.parameters)).astype(np.float32)
            learner.parameters.flat += 0.1 * noise[0]
            if frozen:
                learner.target += 0.1 * noise[1]

    @property
    def arguments(self) -> tuple[Any, ...]:
        spec = self.spec
        return (spec.inputs,), spec.actions, "mlp", spec.hidden, 1, spec.activation, False, False, 0

    def exact(self, double: bool) -> tuple[Array, Array]:
        """The gradient and the temporal differences of the first minibatch in float64, written out anew."""
        online = copy.deepcopy(self.reference.model).double()
        target = copy.deepcopy(self.reference.target_model).double()
        row, next_row, action, return_, discount, weight = (torch.from_numpy(x[0]) for x in self.sample)
        obs, next_obs = (torch.from_numpy(x).double() for x in (self.replay.obs, self.replay.next_obs))
        goal = torch.empty(len(row), dtype=torch.float64)
        with torch.no_grad():
            for b in range(len(row)):
                following = target(next_obs[next_row[b]][None])[0, :, 0]
                judge = online(next_obs[next_row[b]][None])[0, :, 0] if double else following
                goal[b] = return_[b].double() + discount[b].double() * following[int(judge.argmax())]
        chosen = online(obs[row])[torch.arange(len(row)), action, 0]
        loss = torch.nn.functional.smooth_l1_loss(chosen, goal, reduction="none")
        (loss * weight.double()).mean().backward()
        grad = torch.cat([p.grad.reshape(-1) for p in online.parameters()]).numpy()  # type: ignore[union-attr]
        return grad, (goal - chosen).detach().numpy()


BASE = MLPSpec(5, (16, 16), "relu", sizes=(4,), value=False)
OPTIONS = {
    "plain": BASE,
    "tanh": replace(BASE, activation="tanh"),
    "one-layer": replace(BASE, hidden=(64,)),
    "odd": replace(BASE, hidden=(33, 17, 9), inputs=7, sizes=(3,)),
    "wide": replace(BASE, hidden=(256, 128), inputs=49),
    "one-action": replace(BASE, sizes=(1,)),
    "many-actions": replace(BASE, sizes=(43,)),
}


@pytest.mark.parametrize("double", [False, True], ids=["q", "double"])
@pytest.mark.parametrize("bytes_", [False, True], ids=["floats", "bytes"])
@pytest.mark.parametrize("spec", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradient_is_that_of_autograd(spec: MLPSpec, bytes_: bool, double: bool) -> None:
    case = Case(spec, bytes_=bytes_)
    grad, error = case.exact(double)
    for learner in (case.fused, case.reference):
        found = learner.learn(case.replay, case.sample, double, 0.0, 0.0)
        assert np.linalg.norm(learner.parameters.grad - grad) <= 1e-5 * np.linalg.norm(grad)
        np.testing.assert_allclose(found.error[0], error, atol=2e-5)
        assert found.norms[0] == pytest.approx(np.linalg.norm(grad), rel=1e-5)
        size = np.abs(error)
        loss = np.where(size <= 1, 0.5 * size**2, size - 0.5) * case.sample.weight[0]
        np.testing.assert_allclose(found.means[[0, 2]], [loss.mean(), size.mean()], rtol=1e-5)


@pytest.mark.parametrize("frozen", [False, True], ids=["no-target", "target"])
def test_many_steps_are_those_of_torch(frozen: bool) -> None:
    """Ten steps of Adam in one call: values afterwards agree, and the target network has not moved unless it is the same."""
    case = Case(BASE, 32, 10, frozen=frozen)
    before = case.fused.target.copy()
    found = [learner.learn(case.replay, case.sample, True, 1e-3, 0.5) for learner in (case.fused, case.reference)]
    np.testing.assert_allclose(found[0].norms, found[1].norms, rtol=1e-3)
    np.testing.assert_allclose(case.fused.q(case.replay.obs), case.reference.q(case.replay.obs), atol=2e-4)
    assert case.fused.parameters.steps == case.reference.parameters.steps == 10
    assert (case.fused.target == before).all() == frozen
    case.fused.sync()
    assert (case.fused.target == case.fused.parameters.flat).all()
    # the next call sees the new target network
    again = [learner.learn(case.replay, case.sample, False, 0.0, 0.0) for learner in (case.fused, case.reference)]
    if frozen:
        assert np.abs(again[0].error - again[1].error).max() > 1e-3
    case.reference.sync()
    other = case.reference.learn(case.replay, case.sample, False, 0.0, 0.0)
    np.testing.assert_allclose(again[0].error, other.error, atol=1e-3)


def test_one_call_or_many_give_the_same_bits() -> None:
    whole, parts = Case(BASE, 32, 6), Case(BASE, 32, 6)
    whole.fused.learn(whole.replay, whole.sample, True, 1e-3, 0.5)
    for k in range(6):
        parts.fused.learn(parts.replay, Sample(*(x[k : k + 1] for x in parts.sample)), True, 1e-3, 0.5)
    assert whole.fused.parameters.flat.tobytes() == parts.fused.parameters.flat.tobytes()


def test_heads_by_hand() -> None:
    """Each head follows its own best action; a prior is added, times its size, and is never learnt."""
    following = torch.tensor([[[1.0, 8.0], [4.0, 2.0]]])  # (B, A, heads)
    chooser = torch.tensor([[[9.0, 1.0], [0.0, 3.0]]])
    return_, discount = torch.tensor([1.0]), torch.tensor([0.5])
    assert td_target(return_, discount, following, following, True).tolist() == [[1 + 2, 1 + 4]]
    assert td_target(return_, discount, following, chooser, True).tolist() == [[1 + 0.5, 1 + 1]]
    learner = TorchQ(q_network((5,), 4, "mlp", (16,), 1, "relu", False, False, 0, 3, 2.0))
    learner.initialise(np.random.default_rng(0))
    case = Case(replace(BASE, hidden=(16,)), 32, 20)
    prior = {name: array.copy() for name, array in learner.parameters.state().items() if name.startswith("model.prior")}
    obs = torch.from_numpy(case.replay.obs)
    alone = learner.model.head(learner.model.trunk(obs)).view(-1, 4, 3)
    torch.testing.assert_close(learner.model(obs), alone + 2.0 * learner.model.prior(obs).view(-1, 4, 3))  # type: ignore[misc]
    chosen = learner.q(case.replay.obs[:2], head=np.array([2, 0]))
    np.testing.assert_allclose(
        chosen, torch.stack([learner.model(obs)[0, :, 2], learner.model(obs)[1, :, 0]]).detach(), rtol=1e-5
    )
    before = learner.parameters.flat.copy()
    learner.learn(case.replay, case.sample, False, 1e-2, 10.0)
    state = learner.parameters.state()
    assert len(prior) == 4 and all((state[name] == array).all() for name, array in prior.items())
    assert (learner.parameters.flat != before).mean() > 0.3


@pytest.mark.parametrize("options", [(False, False, 8), (True, True, 8), (True, False, 0), (False, False, 0, 8)], ids=str)
def test_options_of_torch_learn(options: tuple[Any, ...]) -> None:
    """A fixed batch of terminated steps: the error goes down."""
    spec = replace(BASE, activation="relu")
    learner = TorchQ(q_network((5,), 4, "mlp", (16, 16), 1, "relu", *options))
    learner.initialise(np.random.default_rng(0), 0.1)
    case = Case(spec, 64, 1)
    sample = Sample(*(np.repeat(x, 300, 0) for x in case.sample))._replace(discount=np.zeros((300, 64), np.float32))
    learned = learner.learn(case.replay, sample, True, 3e-3, 10.0, 1)
    first, last = np.abs(learned.error[:10]).mean(), np.abs(learned.error[-10:]).mean()
    assert last < 0.6 * first


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    case = Case(BASE, 32, 3)
    case.sample.return_[1, 5] = np.nan
    for learner in (case.fused, case.reference):
        found = learner.learn(case.replay, case.sample, False, 1e-3, 0.5)
        assert len(found.norms) == 2 and np.isfinite(found.norms[0]) and not np.isfinite(found.norms[1])
        assert (
            np.isfinite(learner.parameters.flat).all() and learner.parameters.steps == 1 and learner.parameters.bad_gradient()
        )


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match="no value head"):
        FusedQ(replace(BASE, value=True))
    with pytest.raises(ValueError, match="has a value head"):
        FusedActorCritic(BASE)
    with pytest.raises(ValueError, match="one discrete action"):
        FusedQ(replace(BASE, sizes=(2, 2)))
    with pytest.raises(ValueError, match="expected uint8 or float32"):
        FusedQ(BASE).q(np.zeros((2, 5)))
    assert FusedQ(BASE).q(np.zeros((0, 5), np.float32)).shape == (0, 4)


@pytest.mark.parametrize("spec", OPTIONS.values(), ids=OPTIONS.keys())
def test_parameters_lie_as_torch_lists_them(spec: MLPSpec) -> None:
    model = q_network((spec.inputs,), spec.actions, "mlp", spec.hidden, 1, spec.activation, False, False, 0)
    assert list(spec.shapes.items()) == [(name, tuple(p.shape)) for name, p in model.named_parameters()]


def test_torch_is_not_imported() -> None:
    code = """
import sys
from gumdrop.agents.registry import make_agent
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.envs.make import make
env = make("cartpole", {}, num_envs=4)
agent = make_agent("dqn", {"learning_starts": 0, "batch_size": 8}, env, 0)
collector = Collector(env, agent)
collector.begin(env.reset(0))
assert "loss" in agent.learn(collector.rollout(agent.num_steps), 0.0)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
