"""The fused GRU against float64 autograd, step against sequence, and the torch reference."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gumdrop.agents.deep.ppo import run_epoch
from gumdrop.core_ml.beliefs.recurrent import Recurrent
from gumdrop.core_ml.distributions import Categorical, Gaussian
from gumdrop.core_ml.learners.fused import Coefs, FusedRecurrent, GRUSpec
from gumdrop.core_ml.learners.fused.gru.network import PackedSequences
from gumdrop.core_ml.learners.torch_recurrent import TorchRecurrent
from gumdrop.core_ml.maths.losses import ppo_policy, value_error

Array = Any
pytestmark = pytest.mark.xdist_group("fused")  # one worker compiles, the others would wait


class Case:
    """A network with weights of some size, streams to learn from, and the same in float64."""

    def __init__(
        self,
        spec: GRUSpec,
        streams: int,
        steps: int,
        bytes_: bool = False,
        seed: int = 0,
        threads: int = 1,
        starts: float = 0.2,
    ) -> None:
        self.spec, self.many, self.steps, rng = spec, streams, steps, np.random.default_rng(seed)
        self.gaussian = spec.head == "gaussian"
        self.net = FusedRecurrent(spec, threads=threads)
        self.net.initialise(seed, seed)
        self.net.parameters.flat += (0.1 * rng.standard_normal(spec.parameters)).astype(np.float32)
        lead = steps, streams
        self.obs: Array = rng.integers(0, 4, (*lead, spec.inputs)).astype(np.uint8)
        if not bytes_:
            self.obs = rng.normal(size=self.obs.shape).astype(np.float32)
        if self.gaussian:
            self.action: Array = rng.normal(size=(*lead, spec.actions)).astype(np.float32)
        else:
            self.action = np.stack([rng.integers(0, size, lead) for size in spec.sizes], 2)
        self.is_first = rng.random(lead) < starts
        self.state = {
            name: rng.uniform(-1, 1, part.shape).astype(np.float32) for name, part in self.net.initial(streams).items()
        }
        out = self.exact().detach()
        log_prob, _, value = self.split(out.flatten(0, 1), self.action.reshape(steps * streams, -1), None)
        log_prob, value = (x.detach().numpy().reshape(lead) for x in (log_prob, value))
        self.facts = np.empty((4, *lead), np.float32)
        # About half of the ratios and values are clipped, none so nearly that rounding decides it.
        jitter = rng.uniform(-0.005, 0.005, (2, *lead))
        self.facts[0] = log_prob + jitter[0] + rng.choice([-0.42, -0.22, -0.14, -0.05, 0.05, 0.15, 0.29, 0.45], lead)
        self.facts[1] = rng.normal(size=lead)
        # Targets lie a good way above the values: where errors cancel out, a relative error says nothing of the kernel.
        self.facts[2] = value + 0.5 + np.abs(rng.normal(size=lead))
        self.facts[3] = value + jitter[1] + rng.choice([-0.3, -0.15, -0.05, 0.05, 0.15, 0.3], lead)

    def batch(self, out: PackedSequences | None = None) -> PackedSequences:
        return self.net.batch(self.obs, self.action, self.is_first, self.state, *self.facts, out)

    def parameters(self) -> dict[str, torch.Tensor]:
        views = self.net.parameters.views(self.net.parameters.flat)
        return {name: torch.from_numpy(part).double().requires_grad_() for name, part in views.items()}

    def previous(self, action: Array) -> Array:
        """Actions (..., parts) as the GRU reads them."""
        if self.gaussian:
            return action
        return np.concatenate([np.eye(size)[action[..., j]] for j, size in enumerate(self.spec.sizes)], -1)

    def exact(self, p: Any = None, obs: Array | None = None) -> torch.Tensor:
        """Outputs of all steps, (T, B, actions + 1), in float64: the equations, one step after the other."""
        p, obs = p or self.parameters(), torch.from_numpy(self.obs if obs is None else obs).double()
        h, last = torch.from_numpy(self.state["h"][:, 0]).double(), torch.zeros(self.many, 0)
        if self.spec.reads_action:
            last = torch.from_numpy(self.state["action"])
        w, u, b, c = (p[f"belief_net.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        outputs = []
        for t in range(self.steps):
            goes_on = torch.from_numpy(~self.is_first[t]).double().unsqueeze(1)
            h, x = h * goes_on, torch.cat([obs[t], last.double() * goes_on], 1)
            (wr, wz, wn), (ur, uz, un) = (x @ w.T + b).chunk(3, 1), (h @ u.T + c).chunk(3, 1)
            r, z = torch.sigmoid(wr + ur), torch.sigmoid(wz + uz)
            h = (1 - z) * torch.tanh(wn + r * un) + z * h
            heads = [h @ p[f"{head}.weight"].T + p[f"{head}.bias"] for head in ("policy_head", "value_head")]
            outputs.append(torch.cat(heads, 1))
            if self.spec.reads_action:
                last = torch.from_numpy(self.previous(self.action[t]))
        return torch.stack(outputs)

    def split(self, out: torch.Tensor, action: Array, p: Any) -> tuple[Any, Any, Any]:
        """Rows of outputs -> (log-probability of the actions, entropy, value)."""
        if self.gaussian:
            normal = Gaussian(out[:, :-1], (p or self.parameters())["log_std"])
            return normal.log_prob(torch.from_numpy(action).double()), normal.entropy(), out[:, -1]
        heads = [Categorical.of(logits) for logits in out[:, :-1].split(self.spec.sizes, 1)]
        log_prob = sum(head.log_prob(torch.from_numpy(action[:, j])) for j, head in enumerate(heads))
        return log_prob, sum(head.entropy() for head in heads), out[:, -1]

    def exact_gradient(self, index: Array, coefs: Coefs, obs: Array | None = None) -> tuple[Array, list[float]]:
        p = self.parameters()
        out = self.exact(p, obs)[:, index].flatten(0, 1)
        action = self.action[:, index].reshape(len(out), -1)
        log_prob, entropy, value = self.split(out, action, p)
        old_log_prob, weight, target, old_value = torch.from_numpy(self.facts[:, :, index]).double().flatten(1)
        policy, kl, clipped = ppo_policy(log_prob, old_log_prob, weight, coefs.clip_coef)
        error = value_error(value, old_value, target, coefs.value_clip)
        ((policy + coefs.vf_coef * error - coefs.ent_coef * entropy.sum()) / len(out)).backward()
        grads = [part.grad if part.grad is not None else torch.zeros_like(part) for part in p.values()]
        grad = torch.cat([g.reshape(-1) for g in grads]).numpy()
        return grad, [float(x.detach()) for x in (policy, error, entropy.sum(), kl, clipped)]

    def check_gradient(self, index: Array, coefs: Coefs, scale: Array | None = None, obs: Array | None = None) -> None:
        sums = self.net.gradient(self.batch(), index, coefs, scale)
        grad, expected = self.exact_gradient(index, coefs, obs)
        found = self.net.parameters.grad.astype(np.float64)
        assert np.linalg.norm(found - grad) <= 1e-5 * np.linalg.norm(grad)
        np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-4)


BASE = GRUSpec(5, 16, "categorical", (4,))
OPTIONS = {
    "plain": BASE,
    "maze": replace(BASE, inputs=49, hidden=64),
    "odd": replace(BASE, inputs=17, hidden=33),
    "one": replace(BASE, inputs=1, hidden=1, sizes=(2,)),
    "wide": replace(BASE, hidden=200),
    "reads_action": replace(BASE, reads_action=True),
    "multi": replace(BASE, sizes=(3, 2, 5), reads_action=True),
    "many-choices": replace(BASE, sizes=(43,)),
    "gaussian": replace(BASE, head="gaussian", sizes=(3,)),
    "gaussian-reads_action": replace(BASE, head="gaussian", sizes=(9,), reads_action=True, hidden=24),
}


@pytest.mark.parametrize(
    "coefs", [Coefs(), Coefs(0.1, 0.1, 1.0, 0.0), Coefs(0.3, None, 0.0, 0.1)], ids=["", "clip", "no-value"]
)
@pytest.mark.parametrize("bytes_", [False, True], ids=["floats", "bytes"])
@pytest.mark.parametrize("spec", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradient_is_that_of_autograd(spec: GRUSpec, bytes_: bool, coefs: Coefs) -> None:
    case = Case(spec, 40, 9, bytes_)
    case.check_gradient(np.random.default_rng(1).permutation(40)[:31], coefs)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    inputs=st.sampled_from([1, 2, 7, 8, 15, 16, 17, 33, 49]),
    hidden=st.sampled_from([1, 3, 8, 15, 16, 17, 64, 100]),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    gaussian=st.booleans(),
    reads_action=st.booleans(),
    streams=st.one_of(st.integers(1, 30), st.sampled_from([96, 97, 200])),
    steps=st.one_of(st.integers(1, 12), st.sampled_from([96, 97])),
    starts=st.sampled_from([0.0, 0.1, 1.0]),
    bytes_=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape(
    inputs: int, hidden: int, sizes: list[int], gaussian: bool, reads_action: bool, streams: int, steps: int, starts: float,
    bytes_: bool, seed: int,
) -> None:  # fmt: skip
    head = "gaussian" if gaussian else "categorical"
    spec = GRUSpec(inputs, hidden, head, (sizes[0],) if gaussian else tuple(sizes), reads_action)
    case = Case(spec, streams, min(steps, 2000 // streams), bytes_, seed, starts=starts)
    case.check_gradient(np.arange(streams)[::-1].copy(), Coefs(value_clip=0.2))


def stepwise(case: Case) -> tuple[Array, Any]:
    """Outputs of all steps, one call for each, with the case's actions in place of the sampled ones; the states after them."""
    state, start, found = copy.deepcopy(case.state), case.net.initial(case.many), []
    for t in range(case.steps):
        for name, part in state.items():
            part[case.is_first[t]] = start[name][case.is_first[t]]
        before = copy.deepcopy(state)
        outputs, value, after = case.net.outputs(case.obs[t], state)
        for name, part in before.items():
            np.testing.assert_array_equal(part, state[name])
        state = after
        if case.spec.reads_action:
            state["action"] = case.previous(case.action[t]).astype(np.float32)
        found.append(np.column_stack([outputs, value]))
    return np.stack(found), state


@pytest.mark.parametrize("spec", OPTIONS.values(), ids=OPTIONS.keys())
def test_acting_step_by_step_is_the_sequence(spec: GRUSpec) -> None:
    case = Case(spec, 130, 7)
    found, _ = stepwise(case)
    exact = case.exact().detach().numpy()
    np.testing.assert_allclose(found, exact, atol=3e-6 * max(1.0, np.abs(exact).max()))


@pytest.mark.parametrize("spec", OPTIONS.values(), ids=OPTIONS.keys())
def test_acting_reports_what_it_did(spec: GRUSpec) -> None:
    case = Case(spec, 300, 1, starts=0.0)
    acted, state = case.net.act(case.obs[0], case.state, 7)
    log_prob, entropy, value = case.split(case.exact().detach()[0], acted.action.reshape(300, -1), None)
    for found, expected in ((acted.log_prob, log_prob), (acted.entropy, entropy), (acted.value, value)):
        exact = expected.detach().numpy()
        np.testing.assert_allclose(found, exact, atol=3e-6 * max(1.0, np.abs(exact).max()))
    assert {n: (p.shape, p.dtype) for n, p in state.items()} == {n: (p.shape, p.dtype) for n, p in case.state.items()}
    if spec.reads_action:
        np.testing.assert_array_equal(state["action"], case.previous(acted.action.reshape(300, -1)).astype(np.float32))
    greedy, after = case.net.act(case.obs[0], case.state, 7, greedy=True)
    outputs, values, states = case.net.outputs(case.obs[0], case.state)
    first = spec.sizes[0]
    best = outputs if case.gaussian else outputs[:, :first].argmax(1)
    np.testing.assert_array_equal(greedy.action if case.gaussian else greedy.action.reshape(300, -1)[:, 0], best)
    np.testing.assert_array_equal(greedy.value, values)
    for name in after:
        np.testing.assert_array_equal(after[name], states[name])


def test_it_is_the_torch_learner() -> None:
    """The same parameters at first, the same states, gradients and steps of Adam."""
    spec = replace(BASE, inputs=7, hidden=24, reads_action=True)
    for span in (None, 20):
        reference = TorchRecurrent(
            Recurrent(Recurrent.Config(hidden=24, span=span), 7, 4, 3), 4, False, seed=5, reads_action=True
        )
        case = Case(spec, 50, 8)
        case.net.initialise(3, 5, span)
        assert case.net.parameters.shapes == reference.parameters.shapes == spec.shapes
        np.testing.assert_array_equal(case.net.parameters.flat, reference.parameters.flat)
    case.action = case.action[..., 0]
    ours, theirs = case.batch(), reference.batch(case.obs, case.action, case.is_first, case.state, *case.facts)
    for k in range(3):
        order = case.net.permutation(50, k)
        a, b = (run_epoch(net, made, order, 20, Coefs(), 1e-3, 0.5) for net, made in ((case.net, ours), (reference, theirs)))
        np.testing.assert_allclose(a[0], b[0], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(a[1], b[1], rtol=1e-4)
    np.testing.assert_allclose(case.net.parameters.flat, reference.parameters.flat, atol=2e-5)
    assert case.net.parameters.steps == reference.parameters.steps == 9
    (_, value, after), (_, value2, after2) = (net.outputs(case.obs[0], case.state) for net in (case.net, reference))
    np.testing.assert_allclose(value, value2, atol=1e-4)
    np.testing.assert_allclose(after["h"], after2["h"], atol=1e-4)


def test_observations_are_normalised() -> None:
    case = Case(replace(BASE, inputs=49, reads_action=True), 20, 6, bytes_=True)
    case.obs[2:4] = 200
    scale = np.stack([np.linspace(0, 2, 49), np.linspace(0.5, 1, 49)]).astype(np.float32)
    plain = np.clip((case.obs - scale[0]) * scale[1], -10, 10)
    assert (plain == 10).any()
    case.check_gradient(np.arange(20), Coefs(), scale, plain)
    floats = np.ascontiguousarray(plain[0]).astype(np.float32)
    for a, b in zip(case.net.outputs(case.obs[0], case.state, scale)[:2], case.net.outputs(floats, case.state), strict=False):
        np.testing.assert_allclose(a, b, atol=1e-5)


def epochs(case: Case, threads: int) -> dict[str, Array]:
    case.net.threads = threads
    order = np.random.default_rng(3).permutation(case.many)
    out: dict[str, Array] = {}
    for k in range(2):
        out[f"sums {k}"], out[f"norms {k}"] = case.net.epoch(case.batch(), order, 150, Coefs(), 1e-3, 0.5)
    parameters = case.net.parameters
    out |= {"flat": parameters.flat.copy(), "mean": parameters.mean, "square": parameters.square}
    acted, state = case.net.act(case.obs[0], case.state, 1)
    return out | dict(zip("alev", acted, strict=True)) | state


@pytest.mark.parametrize("name", ["plain", "gaussian-reads_action", "multi"])
def test_one_two_and_three_threads_give_the_same_bits(name: str) -> None:
    first = epochs(Case(OPTIONS[name], 400, 11), 1)
    for threads in (2, 3):
        again = epochs(Case(OPTIONS[name], 400, 11), threads)
        for key, values in first.items():
            assert values.tobytes() == again[key].tobytes(), key


def test_longer_sequences_before_change_no_bit() -> None:
    case, fresh = Case(BASE, 30, 5), Case(BASE, 30, 5)
    long = Case(BASE, 30, 150)
    case.net.gradient(long.batch(), np.arange(30), Coefs())
    sums = [c.net.gradient(c.batch(), np.arange(30), Coefs()) for c in (case, fresh)]
    assert sums[0].tobytes() == sums[1].tobytes()
    assert case.net.parameters.grad.tobytes() == fresh.net.parameters.grad.tobytes()


def test_a_stream_acts_the_same_in_any_batch() -> None:
    case = Case(OPTIONS["multi"], 700, 1)
    whole, after = case.net.act(case.obs[0], case.state, 3, counter=1000)
    part = {name: array[210:333] for name, array in case.state.items()}
    some, after_some = case.net.act(case.obs[0, 210:333], part, 3, counter=1210)
    for a, b in zip((*whole, *after.values()), (*some, *after_some.values()), strict=True):
        assert a[210:333].tobytes() == b.tobytes()
    other, _ = case.net.act(case.obs[0], case.state, 4, counter=1000)
    assert (other.action != whole.action).any()


def test_choices_come_as_often_as_they_should() -> None:
    case = Case(replace(BASE, sizes=(4, 3)), 1, 1, starts=0.0)
    rows = 60_000
    state = {name: np.repeat(part, rows, 0) for name, part in case.state.items()}
    acted, _ = case.net.act(np.repeat(case.obs[0], rows, 0), state, 11)
    logits, _, _ = case.net.outputs(case.obs[0], case.state)
    first, second = (torch.from_numpy(part).double().softmax(-1).numpy()[0] for part in np.split(logits, [4], 1))
    seen = np.zeros((4, 3))
    np.add.at(seen, (acted.action[:, 0], acted.action[:, 1]), 1)
    assert stats.chisquare(seen.ravel(), rows * np.outer(first, second).ravel()).pvalue > 1e-3


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    case = Case(BASE, 100, 6)
    case.facts[2, 3, 70] = np.nan
    before = case.net.parameters.flat.copy()
    sums, norms = case.net.epoch(case.batch(), np.arange(100), 50, Coefs(), 1e-3, 0.5)
    assert math.isfinite(norms[0]) and math.isnan(norms[1]) and len(norms) == 2 and case.net.parameters.steps == 1
    assert (before != case.net.parameters.flat).any() and np.isfinite(case.net.parameters.flat).all()
    assert math.isnan(sums[1]) and case.net.parameters.bad_gradient() is not None
    case.obs[3, 3, 2] = np.inf
    case.net.gradient(case.batch(), np.arange(10), Coefs())
    assert case.net.parameters.bad_gradient() is not None
    case.obs[3, 3, 2] = 0.0
    case.facts[2, 3, 70] = 0.0
    case.check_gradient(np.arange(100), Coefs())  # nothing of it is left in the work space


def test_a_batch_reuses_the_arrays_of_another_and_changed_parameters_are_noticed() -> None:
    case = Case(OPTIONS["reads_action"], 30, 4)
    made = case.batch()
    kept = made.data.copy()
    case.facts += 1.0
    assert (case.batch().data != kept).any()
    assert case.batch(made).data is made.data and (made.data != kept).any()
    before, _, _ = case.net.outputs(case.obs[0], case.state)
    case.net.parameters.views(case.net.parameters.flat)["policy_head.bias"][:] += 1.0
    after, _, _ = case.net.outputs(case.obs[0], case.state)
    np.testing.assert_allclose(after, before + 1, atol=1e-6)


def test_what_does_not_fit_is_said() -> None:
    assert replace(BASE, hidden=300).fits() and replace(BASE, inputs=0).fits() and BASE.fits() is None
    case = Case(BASE, 10, 3)
    with pytest.raises(ValueError, match="parameters"):
        FusedRecurrent(replace(BASE, inputs=6), case.net.parameters)
    with pytest.raises(ValueError, match="units"):
        FusedRecurrent(replace(BASE, hidden=0))
    with pytest.raises(ValueError, match="expected uint8 or float32"):
        case.net.act(case.obs[0].astype(np.float64), case.state, 0)
    with pytest.raises(ValueError, match="states"):
        case.net.act(case.obs[0], {"h": case.state["h"][:, 0]}, 0)
    with pytest.raises(ValueError, match="states"):
        case.net.act(case.obs[0], {"h": case.state["h"][:5]}, 0)
    with pytest.raises(ValueError, match="expected int64"):
        case.net.batch(case.obs, case.action.astype(np.int32), case.is_first, case.state, *case.facts)
    with pytest.raises(ValueError, match="facts"):
        case.net.batch(case.obs, case.action, case.is_first, case.state, *case.facts[:, 1:])
    with pytest.raises(ValueError, match=r"0\.\.9"):
        case.net.gradient(case.batch(), np.arange(11), Coefs())
    empty, _ = case.net.act(case.obs[0, :0], case.net.initial(0), 0)
    assert len(empty.value) == 0


def test_torch_is_not_needed_and_the_second_process_compiles_nothing() -> None:
    code = """
import sys, numpy as np
from gumdrop.core_ml.learners.fused import FusedRecurrent, GRUSpec
from gumdrop.core_ml.learners.fused.gru import kernels as gru_kernels
net = FusedRecurrent(GRUSpec(3, 8), threads=2)
net.initialise(0, 0)
net.act(np.zeros((2000, 3), np.uint8), net.initial(2000), 0)
assert "torch" not in sys.modules
hits = gru_kernels.gru_work.stats
print(sum(hits.cache_hits.values()), sum(hits.cache_misses.values()))
"""
    case = Case(BASE, 1, 1)
    case.net.outputs(np.zeros((1, 5), np.uint8), case.net.initial(1))  # compiled and cached, if it was not
    assert not case.net.compiles
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.stdout.split() == ["1", "0"], done.stderr
