"""Recurrent actor-critics in torch: gradients against a plain loop in float64, steps against sequences, states."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gumdrop.agents.deep.ppo import run_epoch
from gumdrop.core_ml.beliefs.frames import FrameStack
from gumdrop.core_ml.beliefs.hmm import HMM
from gumdrop.core_ml.beliefs.recurrent import Recurrent
from gumdrop.core_ml.beliefs.tcn import TCN
from gumdrop.core_ml.beliefs.transformer import Transformer
from gumdrop.core_ml.distributions import Categorical, Gaussian
from gumdrop.core_ml.learners.torch_recurrent import States, TensorSequences, TorchRecurrent
from gumdrop.core_ml.learners.types import Coefs

Array = Any
D, ACTIONS, B, T = 5, 3, 7, 9
BELIEFS: dict[str, Callable[[int, int, int], Any]] = {
    "frames": lambda *s: FrameStack(FrameStack.Config(frames=3, actions=True), *s),
    "rnn": lambda *s: Recurrent(Recurrent.Config(cell="rnn", hidden=8), *s),
    "gru": lambda *s: Recurrent(Recurrent.Config(hidden=8, span=20), *s),
    "lstm": lambda *s: Recurrent(Recurrent.Config(cell="lstm", hidden=8, layers=2), *s),
    "tcn": lambda *s: TCN(TCN.Config(width=8, taps=3, layers=2), *s),
    "transformer": lambda *s: Transformer(Transformer.Config(width=8, heads=2, window=4), *s),
    "hmm": lambda *s: HMM(HMM.Config(states=4), *s),
}
every = pytest.mark.parametrize("name", BELIEFS)


def make(name: str, continuous: bool = False, encoder: bool = False, threads: int = 1, reads_action: bool = True) -> Any:
    """A learner no longer as it was made: what is zero at first would hide faults."""
    code, module = (4, nn.Sequential(nn.Linear(D, 4), nn.Tanh())) if encoder else (D, None)
    belief = BELIEFS[name](code, ACTIONS * reads_action, 0)
    hidden = (6,) if name in ("tcn", "gru") else ()
    learner = TorchRecurrent(
        belief, ACTIONS, continuous, hidden, encoder=module, seed=1, threads=threads, chunk=2 * T, reads_action=reads_action
    )
    rng = np.random.default_rng(2)
    learner.parameters.flat += (0.3 * rng.standard_normal(learner.parameters.flat.size)).astype(np.float32)
    return learner


def data(learner: Any, seed: int = 3, steps: int = T) -> dict[str, Any]:
    """What the learner did in the middle of episodes, with episodes that begin now and then."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(steps, B, D)).astype(np.float32)
    is_first = rng.random((steps, B)) < 0.2
    is_first[:, 0], is_first[:, 1] = False, True
    state = learner.initial(B)
    for t in range(4):
        _, state = learner.act(rng.normal(size=(B, D)).astype(np.float32), state, t)
    found: dict[str, Any] = {"obs": obs, "is_first": is_first, "state": copy.deepcopy(state)}
    acted, outs, start = [], [], learner.initial(B)
    for t in range(steps):
        for name, part in state.items():
            part[is_first[t]] = start[name][is_first[t]]
        logits, value, _ = learner.outputs(obs[t], state)
        one, state = learner.act(obs[t], state, t)
        np.testing.assert_array_equal(one.value, value)
        acted.append(one)
        outs.append(np.column_stack([logits, value]))
    found |= {name: np.stack([getattr(a, name) for a in acted]) for name in ("action", "log_prob", "value")}
    return found | {"outputs": np.stack(outs), "end": state}


def records(learner: Any, d: dict[str, Any]) -> TensorSequences:
    """With old log-probabilities and values that differ, so that about half of the ratios are clipped."""
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(4, *d["value"].shape)).astype(np.float32)
    d["facts"] = (d["log_prob"] + 0.2 * noise[0], noise[1], d["value"] + 0.5 + np.abs(noise[2]), d["value"] + 0.2 * noise[3])
    made: TensorSequences = learner.batch(d["obs"], d["action"], d["is_first"], d["state"], *d["facts"])
    return made


def plain_loss(learner: Any, d: dict[str, Any], index: Array, coefs: Coefs, weights: Array) -> tuple[Any, Any, list[float]]:
    """The mean loss in float64, one stream and one step after the other; the model it was computed with, its five sums."""
    model = copy.deepcopy(learner.model).double()
    if isinstance(model.belief, Transformer):
        model.belief.sinusoids = model.belief.sinusoids.double()
    steps, sums = len(d["obs"]), [0.0] * 5
    loss, last_of = torch.zeros((), dtype=torch.float64), d["state"].get("action", np.zeros((B, 0), np.float32))
    for i in index:
        start = model.belief.initial(1)
        state = {n: torch.from_numpy(d["state"][n][i : i + 1]) for n in start}
        state, start = ({n: p.double() if p.dtype == torch.float32 else p for n, p in s.items()} for s in (state, start))
        last = torch.from_numpy(last_of[i : i + 1]).double()
        for t in range(steps):
            if d["is_first"][t, i]:
                state, last = start, torch.zeros_like(last)
            code = torch.from_numpy(d["obs"][t, i : i + 1]).double()
            code = code if model.encoder is None else model.encoder(code)
            belief, state = model.belief.observe(code, last, torch.zeros(1, dtype=torch.bool), state)
            features = model.trunk(belief.double())
            out, value = model.policy_head(features), model.value_head(features)[0, 0]
            policy: Any = Categorical.of(out) if model.log_std is None else Gaussian(out, model.log_std)
            action = torch.from_numpy(d["action"][t, i : i + 1])
            action = action if model.log_std is None else action.double()
            if last.shape[1]:
                last = torch.eye(ACTIONS, dtype=torch.float64)[action] if model.log_std is None else action
            old, _, target, old_value = (float(fact[t, i]) for fact in d["facts"])
            log_ratio = policy.log_prob(action)[0] - old
            ratio, a, eps = log_ratio.exp(), float(weights[t, i]), coefs.clip_coef
            gain = torch.minimum(ratio * a, ratio.clamp(1 - eps, 1 + eps) * a)
            error = (value - target) ** 2
            if coefs.value_clip is not None:
                moved = old_value + (value - old_value).clamp(-coefs.value_clip, coefs.value_clip)
                error = torch.maximum(error, (moved - target) ** 2)
            entropy = policy.entropy()[0]
            loss = loss - gain + coefs.vf_coef * 0.5 * error - coefs.ent_coef * entropy
            parts = -gain, 0.5 * error, entropy, ratio - 1 - log_ratio, (ratio - 1).abs() > eps
            sums = [total + float(part.detach()) for total, part in zip(sums, parts, strict=True)]
    return loss / (steps * len(index)), model, sums


@pytest.mark.parametrize(
    ("name", "continuous"),
    [(name, kind) for name in BELIEFS for kind in (False, True) if not (name == "hmm" and kind)],  # whose actions are one-hot
)
def test_gradient_is_that_of_a_plain_loop(name: str, continuous: bool) -> None:
    learner = make(name, continuous, encoder=name not in ("hmm", "frames"))
    d, index = data(learner), np.array([4, 1, 0, 6, 2])
    for coefs in (Coefs(), Coefs(0.1, 0.1, 1.0, 0.05)):
        made, chosen = records(learner, d), torch.from_numpy(index)
        sums = learner.gradient(made, chosen, learner.advantage(made, chosen), coefs)
        loss, model, expected = plain_loss(learner, d, index, coefs, d["facts"][1])
        loss.backward()
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
        wanted = torch.cat([g.reshape(-1) for g in grads]).numpy()
        found = learner.parameters.grad.astype(np.float64)
        assert np.linalg.norm(wanted) > 1e-3
        assert np.linalg.norm(found - wanted) <= 2e-5 * np.linalg.norm(wanted)
        np.testing.assert_allclose(sums, expected, rtol=1e-4, atol=1e-4)
        assert sums[4] > 3


@every
def test_acting_step_by_step_says_what_a_sequence_says(name: str) -> None:
    learner = make(name)
    d = data(learner)
    made = records(learner, d)
    assert {n: p.shape for n, p in made.state.items()} == {n: p.shape for n, p in learner.model.belief.initial(B).items()}
    with torch.no_grad():
        rows = [x.transpose(0, 1) for x in (made.obs, made.last, made.is_first)]
        outputs = learner.model.sequence(*rows, made.state).unflatten(0, (B, T)).transpose(0, 1)
    np.testing.assert_allclose(outputs.numpy(), d["outputs"], atol=2e-5)


def test_the_last_action_is_read_where_that_is_wanted() -> None:
    learner, other = make("frames"), make("gru", reads_action=False)
    d = data(learner)
    np.testing.assert_array_equal(d["end"]["action"], np.eye(ACTIONS)[d["action"][-1]])
    made = records(learner, d)
    np.testing.assert_array_equal(made.last[0], d["state"]["action"])
    np.testing.assert_array_equal(made.last[1:], np.eye(ACTIONS)[d["action"][:-1]])
    assert "action" not in other.initial(2) and records(other, data(other)).last.shape == (T, B, 0)


@every
def test_states_are_arrays_that_nobody_else_writes(name: str) -> None:
    learner = make(name)
    start = learner.initial(B)
    assert all(type(part) is np.ndarray and len(part) == B and part.flags.writeable for part in start.values())
    obs = np.random.default_rng(0).normal(size=(B, D)).astype(np.float32)
    _, one = learner.act(obs, start, 0)
    before = copy.deepcopy(one)
    first, two = learner.act(obs, one, 5)
    assert {n: (p.shape, p.dtype) for n, p in two.items()} == {n: (p.shape, p.dtype) for n, p in start.items()}
    for part in two.values():
        part[...] = 0
    same(one, before)
    again, _ = learner.act(obs, before, 5)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    greedy, after = learner.act(obs, before, 5, greedy=True)
    outputs, _, states = learner.outputs(obs, before)
    np.testing.assert_array_equal(greedy.action, outputs.argmax(1))
    same(after, states)


def same(a: States, b: States) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@every
def test_threads_share_streams(name: str) -> None:
    """Two threads act as one does, and learn the same but for the last bits."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(1100, D)).astype(np.float32)
    one, two = make(name), make(name, threads=2)
    for learner in (one, two):
        learner.state = learner.act(obs, learner.initial(1100), 1)[1]
        learner.found = learner.act(obs, learner.state, 2)
    np.testing.assert_array_equal(one.found[0].action, two.found[0].action)
    np.testing.assert_allclose(one.found[0].value, two.found[0].value, atol=1e-5)
    d = data(one)
    results = []
    for learner in (one, two):
        order = learner.permutation(B, 3)
        results.append(run_epoch(learner, records(learner, d), order, 4, Coefs(), 1e-3, 0.5))
        results[-1] += (learner.parameters.flat.copy(),)
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_an_epoch_is_gradients_and_steps_of_adam() -> None:
    learner, twin = make("gru"), make("gru")
    d = data(learner)
    made, order = records(learner, d), learner.permutation(B, 5)
    assert sorted(order.tolist()) == list(range(B))
    sums, norms = run_epoch(learner, made, order, 4, Coefs(), 1e-2, 0.3)
    total, by_hand = np.zeros(5), []
    for part in (order[:4], order[4:]):
        weight = d["facts"][1][:, part].astype(np.float64)
        facts = [fact.copy() for fact in d["facts"]]
        facts[1][:, part] = (weight - weight.mean()) / (weight.std(ddof=1) + 1e-8)
        one = twin.batch(d["obs"], d["action"], d["is_first"], d["state"], *facts)
        chosen = torch.from_numpy(part)
        total += twin.gradient(one, chosen, twin.advantage(one, chosen), Coefs())
        by_hand.append(twin.optimiser.step(1e-2, 0.3))
    np.testing.assert_allclose(sums, total, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(norms, by_hand, rtol=1e-4)
    np.testing.assert_allclose(learner.parameters.flat, twin.parameters.flat, atol=1e-5)
    made = learner.batch(d["obs"], d["action"], d["is_first"], d["state"], *d["facts"][:2], d["facts"][2] * np.nan, d["value"])
    before = learner.parameters.flat.copy()
    sums, norms = run_epoch(learner, made, order, 4, Coefs(), 1e-2, 0.3)
    assert len(norms) == 1 and math.isnan(norms[0]) and learner.parameters.bad_gradient() is not None
    np.testing.assert_array_equal(learner.parameters.flat, before)


def test_observations_are_standardised() -> None:
    learner = make("gru")
    obs = np.random.default_rng(0).integers(0, 255, (B, D)).astype(np.uint8)
    scale = np.stack([np.full(D, 3), np.full(D, 0.1)]).astype(np.float32)
    plain = np.clip((obs - 3.0) * 0.1, -10, 10).astype(np.float32)
    start = learner.initial(B)
    np.testing.assert_allclose(learner.outputs(obs, start, scale)[0], learner.outputs(plain, start)[0], atol=1e-6)
