"""The fused kernels against float64 autograd, torch's Adam, and the mathematics of sampling."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gumdrop.core_ml.distributions import Categorical, Gaussian
from gumdrop.core_ml.learners.fused import Coefs, FusedActorCritic, MLPSpec, PackedBatch
from gumdrop.core_ml.learners.fused.mlp.plan import TILE
from gumdrop.core_ml.learners.torch_actor_critic import TorchActorCritic
from gumdrop.core_ml.maths.losses import ppo_policy, value_error
from gumdrop.core_ml.maths.normalise import RunningNormaliser
from gumdrop.core_ml.nets.actor_critic import actor_critic
from gumdrop.core_ml.optim.adam import FlatAdam
from gumdrop.core_ml.optim.parameters import Parameters

Array = Any
pytestmark = pytest.mark.xdist_group("fused")  # one worker compiles, the others would wait


class Case:
    """A network with weights of some size, rows to learn from, and the same in float64."""

    def __init__(self, spec: MLPSpec, rows: int, bytes_: bool = False, seed: int = 0, threads: int = 1) -> None:
        self.spec, rng = spec, np.random.default_rng(seed)
        gaussian = spec.head == "gaussian"
        self.parameters = Parameters(spec.shapes)
        self.parameters.initialise(rng)
        self.parameters.flat += (0.1 * rng.standard_normal(spec.parameters)).astype(np.float32)
        self.model = actor_critic((spec.inputs,), spec.actions, gaussian, "mlp", spec.hidden, 1, spec.activation, spec.shared)
        self.optimiser = FlatAdam(self.model, parameters=self.parameters)
        self.net = FusedActorCritic(spec, self.parameters, threads)
        self.obs: Array = rng.integers(0, 4, (rows, spec.inputs)).astype(np.uint8)
        if not bytes_:
            self.obs = rng.normal(size=(rows, spec.inputs)).astype(np.float32)
        if gaussian:
            self.action: Array = rng.normal(size=(rows, spec.actions)).astype(np.float32)
        else:
            self.action = np.stack([rng.integers(0, size, rows) for size in spec.sizes], 1)
        log_prob, _, value = self.exact(self.obs)
        self.facts = np.empty((rows, 4), np.float32)
        self.facts[:, 0] = log_prob.detach().numpy() + rng.normal(size=rows) * 0.2  # about half of the ratios are clipped
        self.facts[:, 1] = rng.normal(size=rows)
        # Targets lie a good way above the values: where errors cancel out, a relative error says nothing of the kernel.
        self.facts[:, 2] = value.detach().numpy() + 0.5 + np.abs(rng.normal(size=rows))
        self.facts[:, 3] = value.detach().numpy() + rng.normal(size=rows) * 0.2

    def batch(self) -> PackedBatch:
        return self.net.batch(self.obs, self.action, *self.facts.T)

    def exact(self, rows: Array, model: Any = None, action: Array | None = None) -> tuple[Any, Any, Any]:
        """(log-probability of the actions, entropy, value) in float64."""
        model = model or copy.deepcopy(self.model).double()
        action = torch.from_numpy(self.action if action is None else action)
        out = model.outputs(torch.from_numpy(rows).double())
        if self.spec.head == "gaussian":
            normal = Gaussian(out[:, :-1], model.log_std)
            return normal.log_prob(action.double()), normal.entropy(), out[:, -1]
        heads = [Categorical.of(logits) for logits in out[:, :-1].split(self.spec.sizes, 1)]
        log_prob = sum(head.log_prob(action[:, j]) for j, head in enumerate(heads))
        return log_prob, sum(head.entropy() for head in heads), out[:, -1]

    def exact_gradient(self, index: Array, coefs: Coefs, obs: Array | None = None) -> tuple[Array, list[float]]:
        model = copy.deepcopy(self.model).double()
        obs = self.obs if obs is None else obs
        log_prob, entropy, value = self.exact(obs[index], model, self.action[index])
        old_log_prob, weight, target, old_value = torch.from_numpy(self.facts[index]).double().unbind(1)
        policy, kl, clipped = ppo_policy(log_prob, old_log_prob, weight, coefs.clip_coef)
        error = value_error(value, old_value, target, coefs.value_clip)
        ((policy + coefs.vf_coef * error - coefs.ent_coef * entropy.sum()) / len(index)).backward()
        grad = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).numpy()  # type: ignore[union-attr]
        return grad, [float(x.detach()) for x in (policy, error, entropy.sum(), kl, clipped)]

    def check_gradient(self, index: Array, coefs: Coefs, scale: Array | None = None, obs: Array | None = None) -> None:
        sums = self.net.gradient(self.batch(), index, coefs, scale)
        grad, expected = self.exact_gradient(index, coefs, obs)
        found = self.optimiser.grad.numpy().astype(np.float64)
        assert np.linalg.norm(found - grad) <= 1e-5 * np.linalg.norm(grad)
        np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-4)


BASE = MLPSpec(5, (16, 16), "tanh", True, "categorical", (4,))
OPTIONS = {
    "plain": BASE,
    "relu": replace(BASE, activation="relu"),
    "separate": replace(BASE, shared=False),
    "separate-relu-deep": replace(BASE, shared=False, activation="relu", hidden=(32, 17, 8)),
    "one-layer": replace(BASE, hidden=(64,)),
    "three-layers": replace(BASE, hidden=(64, 32, 48)),
    "wide": replace(BASE, hidden=(256, 256), inputs=49),
    "multi": replace(BASE, sizes=(3, 2, 5)),
    "multi-separate": replace(BASE, sizes=(1, 7), shared=False),
    "many-choices": replace(BASE, sizes=(43,)),
    "gaussian": replace(BASE, head="gaussian", sizes=(3,)),
    "gaussian-separate": replace(BASE, head="gaussian", sizes=(17,), shared=False),
}


@pytest.mark.parametrize(
    "coefs", [Coefs(), Coefs(0.1, 0.1, 1.0, 0.0), Coefs(0.3, None, 0.0, 0.1)], ids=["", "clip", "no-value"]
)
@pytest.mark.parametrize("bytes_", [False, True], ids=["floats", "bytes"])
@pytest.mark.parametrize("spec", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradient_is_that_of_autograd(spec: MLPSpec, bytes_: bool, coefs: Coefs) -> None:
    case = Case(spec, 300, bytes_)
    case.check_gradient(np.random.default_rng(1).permutation(300)[:250], coefs)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    inputs=st.sampled_from([1, 2, 7, 8, 15, 16, 17, 33, 49]),
    hidden=st.lists(st.sampled_from([1, 3, 8, 16, 17, 64, 100]), min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    gaussian=st.booleans(),
    shared=st.booleans(),
    activation=st.sampled_from(["tanh", "relu"]),
    rows=st.one_of(st.integers(1, 20), st.sampled_from([TILE - 1, TILE, TILE + 1, 3 * TILE, 17 * TILE + 5])),
    bytes_=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape(
    inputs: int, hidden: list[int], sizes: list[int], gaussian: bool, shared: bool, activation: Any, rows: int, bytes_: bool,
    seed: int,
) -> None:  # fmt: skip
    spec = MLPSpec(
        inputs, tuple(hidden), activation, shared, "gaussian" if gaussian else "categorical",
        (sizes[0],) if gaussian else tuple(sizes),
    )  # fmt: skip
    case = Case(spec, rows, bytes_, seed)
    case.check_gradient(np.arange(rows)[::-1], Coefs(value_clip=0.2))
    outputs, value = case.net.outputs(case.obs)
    exact = copy.deepcopy(case.model).double().outputs(torch.from_numpy(case.obs).double()).detach().numpy()
    size = max(1.0, float(np.abs(exact).max()))
    np.testing.assert_allclose(np.column_stack([outputs, value]), exact, atol=3e-6 * size)


@pytest.mark.parametrize("spec", OPTIONS.values(), ids=OPTIONS.keys())
def test_acting_reports_what_it_did(spec: MLPSpec) -> None:
    """Log-probabilities within 1e-6 of float64, entropies and values too, for the actions that were drawn."""
    case = Case(spec, 500)
    case.optimiser.flat.mul_(0.5)  # outputs of a size at which float32 has digits behind 1e-6 left
    acted = case.net.act(case.obs, 7, 0)
    log_prob, entropy, value = case.exact(case.obs, action=acted.action.reshape(500, -1))
    for found, expected in ((acted.log_prob, log_prob), (acted.entropy, entropy), (acted.value, value)):
        exact = expected.detach().numpy()
        np.testing.assert_allclose(found, exact, atol=1e-6 * max(1.0, np.abs(exact).max()))


def test_observations_are_normalised() -> None:
    case = Case(replace(BASE, inputs=49), 300, bytes_=True)
    normaliser = RunningNormaliser(49)
    normaliser.update(case.obs[:40])
    case.obs[200:] = 200  # far out: clipped at 10
    scale = normaliser.scale()
    assert scale is not None
    scaled = np.clip((case.obs - scale[0]) * scale[1], -10, 10)
    assert (scaled == 10).any()
    case.check_gradient(np.arange(300), Coefs(), scale, scaled)
    small = Case(replace(BASE, inputs=3), 50)
    scale = np.array([[1, 2, 3], [2, 0.5, 100]], np.float32)
    small.check_gradient(np.arange(50), Coefs(), scale, np.clip((small.obs - scale[0]) * scale[1], -10, 10))


def epochs(case: Case, threads: int, rows: int, size: int) -> dict[str, Array]:
    case.net.threads = threads
    order = np.random.default_rng(3).permutation(rows)
    out: dict[str, Array] = {}
    for k in range(2):
        out[f"sums {k}"], out[f"norms {k}"] = case.net.epoch(case.batch(), order, size, Coefs(), 1e-3, 0.5)
    out |= {"flat": case.optimiser.flat.numpy(), "mean": case.optimiser.mean.numpy(), "square": case.optimiser.square.numpy()}
    return out | dict(zip("alev", case.net.act(case.obs, 1, 5), strict=True))


@pytest.mark.parametrize("spec", [OPTIONS["plain"], OPTIONS["gaussian-separate"], OPTIONS["multi"]], ids=lambda s: s.head)
def test_one_two_and_four_threads_give_the_same_bits(spec: MLPSpec) -> None:
    first = epochs(Case(spec, 5000), 1, 5000, 1800)
    for threads in (2, 3, 4):
        again = epochs(Case(spec, 5000), threads, 5000, 1800)
        for name, values in first.items():
            assert values.tobytes() == again[name].tobytes(), name


def test_adam_is_that_of_the_torch_path() -> None:
    """Ten minibatches, each step repeated by FlatAdam from the same gradient and state."""
    case = Case(BASE, 640)
    twin = FlatAdam(copy.deepcopy(case.model))
    order, index = np.arange(640), np.split(np.arange(640), 10)
    weights = case.facts[:, 1].copy()
    for part in index:
        part_weights = torch.from_numpy(weights[part])
        case.facts[part, 1] = (part_weights - part_weights.mean()) / (part_weights.std() + 1e-8)
    reference = Case(BASE, 640)
    reference.facts[:] = case.facts
    norms = []
    for part in index:
        reference.net.gradient(reference.batch(), part, Coefs())
        twin.grad.copy_(reference.optimiser.grad)
        norms.append(twin.step(3e-3, 0.2))
        reference.optimiser.flat.copy_(twin.flat)
    case.facts[:, 1] = weights  # the kernel standardises advantages itself
    _, found = case.net.epoch(case.batch(), order, 64, Coefs(), 3e-3, 0.2)
    assert case.optimiser.steps == twin.steps == 10
    assert sum(norm > 0.2 for norm in norms) >= 3
    np.testing.assert_allclose(found, norms, rtol=1e-4)
    for name in ("flat", "mean", "square"):
        ours, theirs = getattr(case.optimiser, name).numpy(), getattr(twin, name).numpy()
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-6 * np.abs(theirs).max(), err_msg=name)


def test_a_step_is_flat_adams_within_rounding() -> None:
    case = Case(BASE, 100)
    twin = FlatAdam(copy.deepcopy(case.model))
    for largest in (0.0, 0.01, 10.0):
        case.net.gradient(case.batch(), np.arange(100), Coefs())
        twin.flat.copy_(case.optimiser.flat)
        twin.grad.copy_(case.optimiser.grad)
        norm = twin.step(1e-2, largest)
        _, norms = case.net.epoch(case.batch(), np.arange(100), 100, Coefs(), 1e-2, largest, normalise=False)
        assert norms[0] == pytest.approx(norm, rel=1e-6)
        for name in ("flat", "mean", "square"):
            ours, theirs = getattr(case.optimiser, name).numpy(), getattr(twin, name).numpy()
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=3e-8, err_msg=name)


def test_whoever_changes_the_parameters_is_noticed() -> None:
    case = Case(BASE, 10)
    before, _ = case.net.outputs(case.obs)
    with torch.no_grad():
        case.model.policy_head.bias.add_(1.0)
    after, _ = case.net.outputs(case.obs)
    np.testing.assert_allclose(after, before + 1, atol=1e-6)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    case = Case(BASE, 200)
    case.facts[150, 2] = np.nan
    before = case.optimiser.flat.clone()
    sums, norms = case.net.epoch(case.batch(), np.arange(200), 100, Coefs(), 1e-3, 0.5)
    assert math.isfinite(norms[0]) and math.isnan(norms[1]) and len(norms) == 2 and case.optimiser.steps == 1
    assert not torch.equal(before, case.optimiser.flat) and torch.isfinite(case.optimiser.flat).all()
    assert math.isnan(sums[1]) and math.isfinite(sums[0])
    assert case.parameters.bad_gradient() is not None
    case.obs[3, 2] = np.inf
    case.net.gradient(case.batch(), np.arange(10), Coefs())
    assert case.parameters.bad_gradient() is not None
    case.facts[150, 2] = 0.0
    case.net.gradient(case.batch(), np.arange(10, 200), Coefs())
    assert case.parameters.bad_gradient() is None  # nothing of it is left in the work space


def test_choices_come_as_often_as_they_should() -> None:
    case = Case(replace(BASE, sizes=(4, 3)), 1)
    rows = 60_000
    acted = case.net.act(np.repeat(case.obs, rows, 0), 11, 0)
    logits, _ = case.net.outputs(case.obs)
    first, second = (torch.from_numpy(part).double().softmax(-1).numpy()[0] for part in np.split(logits, [4], 1))
    seen = np.zeros((4, 3))
    np.add.at(seen, (acted.action[:, 0], acted.action[:, 1]), 1)
    assert stats.chisquare(seen.ravel(), rows * np.outer(first, second).ravel()).pvalue > 1e-3


def test_gaussian_actions_are_normal() -> None:
    case = Case(replace(BASE, head="gaussian", sizes=(2,)), 1)
    rows = 60_000
    acted = case.net.act(np.repeat(case.obs, rows, 0), 5, 0)
    mean, _ = case.net.outputs(case.obs)
    z = (acted.action - mean) / case.model.log_std.detach().exp().numpy()  # type: ignore[union-attr]
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.02 and np.abs(z).max() > 3.5


@pytest.mark.parametrize("name", ["plain", "multi", "gaussian"])
def test_a_row_is_the_same_in_any_batch(name: str) -> None:
    case = Case(OPTIONS[name], 700)
    whole, part = case.net.act(case.obs, 3, 1000), case.net.act(case.obs[210:333], 3, 1210)
    for a, b in zip(whole, part, strict=True):
        assert a[210:333].tobytes() == b.tobytes()
    other, later = case.net.act(case.obs, 4, 1000), case.net.act(case.obs, 3, 1700)
    assert (other.action != whole.action).any() and (later.action != whole.action).any()


def test_orders_are_random_and_can_be_repeated() -> None:
    case = Case(BASE, 1)
    net = case.net
    orders = np.stack([net.permutation(5, 3, counter=5 * k) for k in range(12_000)])
    assert (np.sort(orders, 1) == np.arange(5)).all()
    seen = np.unique(orders @ 10 ** np.arange(5), return_counts=True)[1]
    assert len(seen) == 120 and stats.chisquare(seen).pvalue > 1e-3
    assert (net.permutation(5, 3, counter=35) == orders[7]).all() and len(net.permutation(0, 3)) == 0
    for runs in (net.permutation(50, 3, block=8), TorchActorCritic(case.model).permutation(50, 3, block=8)):
        assert runs.dtype == np.int64 and (np.sort(runs) == np.arange(50)).all() and 2 <= (np.diff(runs) != 1).sum() <= 6


def test_what_does_not_fit_is_said() -> None:
    assert replace(BASE, hidden=(8,) * 4).fits() and replace(BASE, hidden=(300,)).fits() and BASE.fits() is None
    case = Case(BASE, 10)
    with pytest.raises(ValueError, match="parameters"):
        FusedActorCritic(replace(BASE, inputs=6), case.parameters)
    with pytest.raises(ValueError, match="expected uint8 or float32"):
        case.net.act(case.obs.astype(np.float64), 0, 0)
    with pytest.raises(ValueError, match="expected int64"):
        case.net.batch(case.obs, case.action.astype(np.int32), *case.facts.T)
    with pytest.raises(ValueError, match="facts"):
        case.net.batch(case.obs, case.action, *case.facts.T[:, 1:])
    with pytest.raises(ValueError, match="0..9"):
        case.net.gradient(case.batch(), np.arange(11), Coefs())
    assert len(case.net.outputs(case.obs[:0])[1]) == 0


@pytest.mark.parametrize("spec", OPTIONS.values(), ids=OPTIONS.keys())
def test_parameters_lie_as_torch_lists_them(spec: MLPSpec) -> None:
    case = Case(spec, 1)
    assert {name: tuple(p.shape) for name, p in case.model.named_parameters()} == spec.shapes
    assert spec.parameters == sum(p.numel() for p in case.model.parameters())


def test_the_second_process_compiles_nothing_and_a_forked_child_works() -> None:
    code = """
import os, sys, numpy as np
from gumdrop.core_ml.learners.fused import FusedActorCritic, MLPSpec
from gumdrop.core_ml.learners.fused.mlp import kernels
net = FusedActorCritic(MLPSpec(3, (8,)), threads=2)
assert "torch" not in sys.modules
obs = np.zeros((2000, 3), np.uint8)
net.act(obs, 0, 0)
print(sum(kernels.work.stats.cache_hits.values()), sum(kernels.work.stats.cache_misses.values()), flush=True)
child = os.fork()
if child == 0:
    net.act(obs, 0, 0)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    Case(BASE, 1).net.outputs(np.zeros((1, 5), np.uint8))  # compiled and cached, if it was not
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.stdout.split() == ["1", "0", "7"], done.stderr


def test_who_will_have_to_compile_knows_it(tmp_path: Path) -> None:
    code = "from gumdrop.core_ml.learners.fused import FusedActorCritic, MLPSpec; print(FusedActorCritic(MLPSpec(3)).compiles)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "GUMDROP_CACHE": str(tmp_path)}
    )
    assert done.stdout.strip() == "True", done.stderr
    net = Case(BASE, 1).net
    net.outputs(np.zeros((1, 5), np.uint8))
    assert not net.compiles
