"""Action masks in learners: log-probabilities, entropy and gradients against float64; illegal actions are never sampled."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from gumdrop.core_ml.beliefs.recurrent import Recurrent
from gumdrop.core_ml.data.transitions import Replay
from gumdrop.core_ml.distributions import Categorical
from gumdrop.core_ml.learners.fused import FusedActorCritic, FusedQ, MLPSpec
from gumdrop.core_ml.learners.fused.gru.network import FusedRecurrent
from gumdrop.core_ml.learners.fused.gru.plan import GRUSpec
from gumdrop.core_ml.learners.torch_actor_critic import TorchActorCritic
from gumdrop.core_ml.learners.torch_q import TorchQ
from gumdrop.core_ml.learners.torch_recurrent import TorchRecurrent
from gumdrop.core_ml.learners.types import Coefs
from gumdrop.core_ml.nets.actor_critic import actor_critic
from gumdrop.core_ml.nets.q_network import q_network

ACTIONS = 5
COEFS = Coefs(0.2, 0.3, 0.5, 0.05)


def random_masks(rng: np.random.Generator, *lead: int) -> Any:
    mask = rng.random((*lead, ACTIONS)) < 0.5
    mask[..., 0] |= ~mask.any(-1)
    return mask


def by_hand(logits: Any, mask: Any) -> tuple[Any, Any]:
    """Log-probabilities, -inf where illegal, and entropies in float64, row by row over the legal actions alone."""
    log_p, entropy = np.full(logits.shape, -np.inf), np.zeros(len(logits))
    for i, legal in enumerate(mask):
        x = logits[i, legal].astype(np.float64)
        log_p[i, legal] = x - x.max() - np.log(np.exp(x - x.max()).sum())
        entropy[i] = -(np.exp(log_p[i, legal]) * log_p[i, legal]).sum()
    return log_p, entropy


def test_log_probabilities_and_entropy_are_those_of_the_legal_actions() -> None:
    rng = np.random.default_rng(0)
    logits, mask = 3 * rng.normal(size=(200, ACTIONS)), random_masks(rng, 200)
    distribution = Categorical.of(torch.from_numpy(logits), torch.from_numpy(mask))
    log_p, entropy = by_hand(logits, mask)
    np.testing.assert_allclose(distribution.log_p.numpy()[mask], log_p[mask], atol=1e-12)
    np.testing.assert_allclose(distribution.entropy().numpy(), entropy, atol=1e-12)
    assert (distribution.log_p.exp().numpy()[~mask] == 0).all()  # exactly
    assert mask[np.arange(200), distribution.mode().numpy()].all()
    for u in (0.0, 1 - 2.0**-24):
        action = distribution.quantile(torch.full((200, 1), u, dtype=torch.float64)).numpy()
        assert mask[np.arange(200), action].all(), u


def mlp(kind: str) -> Any:
    """A learner of one network with the same parameters."""
    if kind == "torch":
        learner: Any = TorchActorCritic(actor_critic((6,), ACTIONS, False, "mlp", (16,), 16, "tanh", True))
    else:
        learner = FusedActorCritic(MLPSpec(6, (16,), "tanh", True, "categorical", (ACTIONS,)))
    learner.parameters.initialise(np.random.default_rng(1))
    learner.parameters.flat[:] *= 3
    return learner


@pytest.mark.parametrize("kind", ["torch", "fused"])
def test_acting_takes_legal_actions_with_their_renormalised_probability(kind: str) -> None:
    rng, learner = np.random.default_rng(2), mlp(kind)
    obs, mask = rng.normal(size=(20_000, 6)).astype(np.float32), random_masks(rng, 20_000)
    acted = learner.act(obs, 3, mask=mask)
    log_p, entropy = by_hand(learner.outputs(obs)[0], mask)
    rows = np.arange(len(obs))
    assert mask[rows, acted.action].all()
    np.testing.assert_allclose(acted.log_prob, log_p[rows, acted.action], atol=2e-5)
    np.testing.assert_allclose(acted.entropy, entropy, atol=2e-5)
    # chosen as often as their probabilities say: sums over all rows, within five standard deviations
    p = np.exp(log_p)
    chosen = np.bincount(acted.action, minlength=ACTIONS)
    assert (np.abs(chosen - p.sum(0)) < 5 * np.sqrt((p * (1 - p)).sum(0))).all()


def reference(model: Any, obs: Any, action: Any, mask: Any, old: Any, advantage: Any, target: Any, value: Any) -> Any:
    """Gradient of PPO's loss in float64; a softmax over each row's legal logits, without any constant for the others."""
    outputs = model.outputs(torch.from_numpy(obs).double())
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(len(obs)):
        legal = np.flatnonzero(mask[i])
        log_p = outputs[i, legal].log_softmax(0)
        ratio = (log_p[list(legal).index(action[i])] - old[i]).exp()
        loss = loss - torch.minimum(ratio * advantage[i], ratio.clamp(0.8, 1.2) * advantage[i])
        error = (outputs[i, -1] - target[i]) ** 2
        moved = value[i] + (outputs[i, -1] - value[i]).clamp(-0.3, 0.3)
        loss = loss + 0.5 * 0.5 * torch.maximum(error, (moved - target[i]) ** 2)
        loss = loss + 0.05 * (log_p.exp() * log_p).sum()
    (loss / len(obs)).backward()
    return {name: p.grad.numpy() for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", ["torch", "fused"])
def test_gradients_are_those_of_float64_and_illegal_logits_have_none(kind: str) -> None:
    rng, learner, n = np.random.default_rng(4), mlp(kind), 150
    obs, mask = rng.normal(size=(n, 6)).astype(np.float32), random_masks(rng, n)
    acted = learner.act(obs, 5, mask=mask)
    old = (acted.log_prob + 0.3 * rng.normal(size=n)).astype(np.float32)
    advantage, target = (rng.normal(size=n).astype(np.float32) for _ in range(2))
    value = acted.value + 0.1 * rng.normal(size=n).astype(np.float32)
    batch = learner.batch(obs, acted.action, old, advantage, target, value, mask=mask)
    index: Any = np.arange(n)
    if kind == "torch":
        learner.gradient(batch, torch.from_numpy(index), torch.from_numpy(advantage), COEFS)
    else:
        learner.gradient(batch, index, COEFS)
    model = copy.deepcopy(mlp("torch").model).double()
    for p in model.parameters():
        p.grad = None
    wanted = reference(model, obs, acted.action, mask, old, advantage, target, value)
    found = learner.parameters.views(learner.parameters.grad)
    for name, grad in wanted.items():
        np.testing.assert_allclose(found[name], grad, atol=3e-6, rtol=2e-4, err_msg=name)
    # where an action is never legal, its logit moves nothing
    never = mask.copy()
    never[:, 2], never[:, 3] = False, True
    action = np.where(never[index, acted.action], acted.action, 3)
    batch = learner.batch(obs, action, old, advantage, target, value, mask=never)
    if kind == "torch":
        learner.gradient(batch, torch.from_numpy(index), torch.from_numpy(advantage), COEFS)
    else:
        learner.gradient(batch, index, COEFS)
    found = learner.parameters.views(learner.parameters.grad)
    assert (found["policy_head.bias"][2] == 0) and (found["policy_head.weight"][2] == 0).all()
    assert all(np.isfinite(part).all() for part in found.values())


def test_a_recurrent_kernel_has_the_masked_gradient_of_torch() -> None:
    rng, steps, streams = np.random.default_rng(6), 7, 9
    fused = FusedRecurrent(GRUSpec(4, 8, "categorical", (ACTIONS,), reads_action=True))
    fused.initialise(1, 2)
    belief = Recurrent(Recurrent.Config(hidden=8), 4, ACTIONS, 1)
    torch_learner = TorchRecurrent(belief, ACTIONS, False, seed=2, reads_action=True)
    torch_learner.parameters.flat[:] = fused.parameters.flat
    mask = random_masks(rng, steps, streams)
    obs = rng.normal(size=(steps, streams, 4)).astype(np.float32)
    action = np.array([[rng.choice(np.flatnonzero(m)) for m in row] for row in mask])
    first = rng.random((steps, streams)) < 0.2
    first[0] = False
    facts = [rng.normal(size=(steps, streams)).astype(np.float32) for _ in range(4)]
    facts[0] = -np.abs(facts[0])
    one, other = (x.batch(obs, action, first, x.initial(streams), *facts, mask=mask) for x in (fused, torch_learner))
    fused.gradient(one, np.arange(streams), COEFS)
    torch_learner.gradient(other, torch.arange(streams), torch.from_numpy(facts[1]), COEFS)
    np.testing.assert_allclose(fused.parameters.grad, torch_learner.parameters.grad, atol=2e-6, rtol=1e-3)
    acted, _ = fused.act(obs[0], fused.initial(streams), 3, mask=mask[0])
    assert np.take_along_axis(mask[0], acted.action[:, None], 1).all()
    best, _ = fused.act(obs[0], fused.initial(streams), 3, greedy=True, mask=mask[0])
    assert (
        best.action == torch_learner.act(obs[0], torch_learner.initial(streams), 0, greedy=True, mask=mask[0])[0].action
    ).all()


@pytest.mark.parametrize("double", [False, True])
def test_q_targets_are_maxima_over_the_legal_next_actions(double: bool) -> None:
    rng, n = np.random.default_rng(7), 64
    learners: list[Any] = [FusedQ(MLPSpec(6, (16,), "relu", sizes=(ACTIONS,), value=False)),
                           TorchQ(q_network((6,), ACTIONS, "mlp", (16,), 16, "relu", False, False, 0))]  # fmt: skip
    replay = Replay(n + 8, 6, np.float32, masked=ACTIONS)
    obs, after = (rng.normal(size=(8, n // 8, 6)).astype(np.float32) for _ in range(2))
    mask, ended = random_masks(rng, 8, n // 8), np.zeros((8, n // 8), np.bool_)
    action, reward = rng.integers(ACTIONS, size=(8, n // 8)), rng.normal(size=(8, n // 8)).astype(np.float32)
    with pytest.raises(ValueError, match="without them"):
        Replay(n + 8, 6, np.float32, masked=ACTIONS).add(obs, action, reward, after, ended, ended)
    replay.add(obs, action, reward, after, ended, ended, mask)
    sample = replay.uniform(rng, 1, 32, 0.9)
    for learner in learners:
        learner.initialise(np.random.default_rng(8))
        learner.target[:] *= 2
        here, there = learner.q(replay.obs[sample.row[0]]), learner.q(replay.next_obs[sample.next_row[0]])
        own = learner.parameters.flat.copy()
        learner.parameters.flat[:] = learner.target
        frozen = learner.q(replay.next_obs[sample.next_row[0]])
        learner.parameters.flat[:] = own
        assert replay.next_mask is not None
        legal = replay.next_mask[sample.next_row[0]]
        best = np.where(legal, there if double else frozen, -np.inf).argmax(1)
        rows = np.arange(32)
        error = sample.return_[0] + 0.9 * frozen[rows, best] - here[rows, sample.action[0]]
        assert (best != (there if double else frozen).argmax(1)).any()  # else the mask would not matter
        found = learner.learn(replay, sample, double, 1e-3, 10.0)
        np.testing.assert_allclose(found.error[0], error, atol=1e-5)
