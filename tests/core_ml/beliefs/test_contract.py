"""What every belief keeps to: shapes, episode starts, steps equal to sequences, checkpoints, no use of global randomness."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gumdrop.core_ml.beliefs.frames import FrameStack
from gumdrop.core_ml.beliefs.hmm import HMM
from gumdrop.core_ml.beliefs.protocol import State, burn_in
from gumdrop.core_ml.beliefs.recurrent import Recurrent
from gumdrop.core_ml.beliefs.tcn import TCN
from gumdrop.core_ml.beliefs.transformer import Transformer
from gumdrop.core_ml.component import components
from gumdrop.core_ml.optim.adam import FlatAdam

D, K, B, T = 5, 3, 6, 17

BELIEFS: dict[str, Callable[[int, int, int], Any]] = {
    "frames": lambda *s: FrameStack(FrameStack.Config(frames=3, actions=True), *s),
    "memoryless": lambda *s: FrameStack(FrameStack.Config(frames=1), *s),
    "rnn": lambda *s: Recurrent(Recurrent.Config(cell="rnn", hidden=8), *s),
    "gru": lambda *s: Recurrent(Recurrent.Config(hidden=8, span=20), *s),
    "lstm": lambda *s: Recurrent(Recurrent.Config(cell="lstm", hidden=8, layers=2), *s),
    "tcn": lambda *s: TCN(TCN.Config(width=8, taps=3, layers=2), *s),
    "transformer": lambda *s: Transformer(Transformer.Config(width=8, heads=2, window=4), *s),
    "transformer-contents": lambda *s: Transformer(Transformer.Config(width=8, heads=2, window=4, distances=False), *s),
    "gtrxl": lambda *s: Transformer(Transformer.Config(width=8, heads=2, window=30, gate="gru"), *s),
    "hmm": lambda *s: HMM(HMM.Config(states=4), *s),
}
for _name, _entry in components("belief").items():  # a new one is tested the moment that its file exists
    if _entry.cls not in {type(made(D, K, 0)) for made in BELIEFS.values()}:
        BELIEFS[_name] = partial(_entry.cls, _entry.cls.Config(**_entry.fixed))
TRAINED = [name for name in BELIEFS if list(BELIEFS[name](D, K, 0).net.parameters())]
every = pytest.mark.parametrize("name", BELIEFS)


def make(name: str, seed: int = 0, actions: int = K) -> Any:
    """A belief that is no longer as it was made: what is zero at first would hide faults."""
    belief = BELIEFS[name](D, actions, seed)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in belief.net.parameters():
            p += 0.3 * torch.randn(p.shape, generator=rng)
    return belief


def data(steps: int = T, actions: int = K, seed: int = 1, rows: int = B) -> tuple[Tensor, Tensor, Tensor]:
    """One-hot codes and actions; row 0 without starts, row 1 with one at each step, the others with a few."""
    rng = torch.Generator().manual_seed(seed)
    code = torch.eye(D)[torch.randint(D, (rows, steps), generator=rng)]
    action = torch.eye(K)[torch.randint(K, (rows, steps), generator=rng)][..., :actions]
    is_first = torch.rand(rows, steps, generator=rng) < 0.15
    is_first[0], is_first[1] = False, True
    is_first[2:, 0] = torch.tensor([True, False, True, False])[: rows - 2]
    return code, action, is_first


def doubled(belief: Any, state: State, *parts: Tensor) -> tuple[Any, ...]:
    """`belief` made one of float64, its state and its arguments likewise. The shape of a batch changes the order of sums, by
    the machine; in float32 that can be as large as the bound."""
    belief.net.double()
    if isinstance(belief, Transformer):
        belief.sinusoids = belief.sinusoids.double()
    wide = [p.double() if p.dtype == torch.float32 else p for p in parts]
    return {n: p.double() if p.dtype == torch.float32 else p for n, p in state.items()}, *wide


def used(belief: Any, actions: int = K) -> State:
    """A state in the middle of episodes."""
    code, action, is_first = data(7, actions, seed=5)
    is_first[:, 1:] = False
    with torch.no_grad():
        return belief.sequence(code, action, is_first, belief.initial(B))[1]  # type: ignore[no-any-return]


def same(a: State, b: State, atol: float = 0.0) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].shape == b[name].shape and a[name].dtype == b[name].dtype, name
        torch.testing.assert_close(a[name].double(), b[name].double(), rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def stepwise(belief: Any, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
    found = []
    for t in range(code.shape[1]):
        out, state = belief.observe(code[:, t], action[:, t], is_first[:, t], state)
        found.append(out)
    return torch.stack(found, 1), state


@every
def test_shapes(name: str) -> None:
    belief = make(name)
    code, action, is_first = data()
    start = belief.initial(B)
    out, state = belief.sequence(code, action, is_first, start)
    assert out.shape == (B, T, belief.size) and out.dtype == torch.float32 and out.isfinite().all()
    one, after = belief.observe(code[:, 0], action[:, 0], is_first[:, 0], start)
    assert one.shape == (B, belief.size) and one.dtype == torch.float32
    for new in (state, after):
        assert {n: (p.shape, p.dtype) for n, p in new.items()} == {n: (p.shape, p.dtype) for n, p in start.items()}
    for part in start.values():
        assert part.shape[0] == B and all(torch.equal(row, part[0]) for row in part)
    with pytest.raises(ValueError, match="last axes"):
        belief.observe(code[:, 0, :-1], action[:, 0], is_first[:, 0], start)
    with pytest.raises(ValueError, match="last axes"):
        belief.sequence(code, action[:, :-1], is_first, start)


@every
@pytest.mark.parametrize("actions", [K, 0])
@pytest.mark.parametrize("gradient", [True, False])
def test_steps_equal_a_sequence_and_its_halves(name: str, actions: int, gradient: bool) -> None:
    belief = make(name, actions=actions)
    code, action, is_first = data(actions=actions)
    for state in (belief.initial(B), used(belief, actions)):
        with torch.set_grad_enabled(gradient):
            whole, end = belief.sequence(code, action, is_first, state)
            steps, last = stepwise(belief, code, action, is_first, state)
            torch.testing.assert_close(whole, steps, rtol=0, atol=1e-5)
            same(end, last, 1e-5)
            for cut in (1, 4, 13):
                first, middle = belief.sequence(code[:, :cut], action[:, :cut], is_first[:, :cut], state)
                rest, last = belief.sequence(code[:, cut:], action[:, cut:], is_first[:, cut:], middle)
                torch.testing.assert_close(whole, torch.cat([first, rest], 1), rtol=0, atol=1e-5)
                same(end, last, 1e-5)


@every
def test_an_episode_start_is_a_fresh_start(name: str) -> None:
    """Whatever was before, NaN included: same belief, same state, same future, to the bit."""
    belief = make(name)
    code, action, is_first = data()
    is_first[:, 1:] = False
    is_first[:, 0] = True
    junk = {
        n: torch.full_like(p, torch.nan) if p.is_floating_point() else p + 3 for n, p in used(belief).items() if n != "begun"
    }
    junk |= {n: p for n, p in used(belief).items() if n == "begun"}
    other = action.roll(1, -1)
    for gradient in (True, False):
        with torch.set_grad_enabled(gradient):
            for steps in (1, T):
                first, after = belief.sequence(code[:, :steps], action[:, :steps], is_first[:, :steps], belief.initial(B))
                swapped = torch.cat([other[:, :1], action[:, 1:steps]], 1)  # the action before a start is of the old episode
                again, later = belief.sequence(code[:, :steps], swapped, is_first[:, :steps], junk)
                assert torch.equal(first, again)
                same(after, later)
            one, after = belief.observe(code[:, 0], action[:, 0], is_first[:, 0], belief.initial(B))
            again, later = belief.observe(code[:, 0], other[:, 0], is_first[:, 0], junk)
            assert torch.equal(one, again)
            same(after, later)


@every
def test_a_start_within_a_sequence_hides_what_was_before(name: str) -> None:
    belief = make(name)
    code, action, is_first = data()
    is_first[:, 9] = True
    before = used(belief)
    start, code, action, is_first = doubled(belief, belief.initial(B), code, action, is_first)
    whole, end = belief.sequence(code, action, is_first, doubled(belief, before)[0])
    alone, last = belief.sequence(code[:, 9:], action[:, 9:], is_first[:, 9:], start)
    torch.testing.assert_close(whole[:, 9:], alone, rtol=0, atol=1e-6)
    same(end, last, 1e-5)


@every
def test_a_row_alone_is_that_row_of_a_batch(name: str) -> None:
    belief = make(name)
    state, code, action, is_first = doubled(belief, used(belief), *data())
    whole, end = belief.sequence(code, action, is_first, state)
    with torch.no_grad():
        steps, last = stepwise(belief, code, action, is_first, state)
    for i in range(B):
        row = slice(i, i + 1)
        mine = {n: p[row] for n, p in state.items()}
        alone, after = belief.sequence(code[row], action[row], is_first[row], mine)
        torch.testing.assert_close(whole[row], alone, rtol=0, atol=1e-6)
        same({n: p[row] for n, p in end.items()}, after, 1e-6)
        with torch.no_grad():
            alone, after = stepwise(belief, code[row], action[row], is_first[row], mine)
        torch.testing.assert_close(steps[row], alone, rtol=0, atol=1e-6)


@every
def test_arguments_and_global_randomness_stay_as_they_are(name: str) -> None:
    torch.manual_seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    belief = make(name)
    given = (*data(), used(belief))
    kept = copy.deepcopy(given)
    for gradient in (True, False):
        with torch.set_grad_enabled(gradient):
            belief.sequence(*given)
            stepwise(belief, *given)
    assert all(torch.equal(a, b) for a, b in zip(given[:3], kept[:3], strict=True))
    same(given[3], kept[3])
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # type: ignore[index]


@every
def test_same_seed_same_belief_and_checkpoints(name: str) -> None:
    belief, twin, other = make(name), make(name), make(name, seed=1)
    given = (*data(), used(belief))
    out = belief.sequence(*given)[0]
    assert torch.equal(out, twin.sequence(*given)[0])
    state = belief.state_dict()
    if state:
        assert not torch.equal(out, other.sequence(*given)[0])
    kept = copy.deepcopy(state)
    other.load_state_dict(state)
    assert torch.equal(out, other.sequence(*given)[0])
    for array in state.values():  # neither is tied to the other
        array += 1
    assert torch.equal(out, other.sequence(*given)[0]) and torch.equal(out, belief.sequence(*given)[0])
    faults = [kept | {"more": np.zeros(1)}]
    for array_name, array in list(kept.items())[:1]:
        faults.append({n: a for n, a in kept.items() if n != array_name})
        faults.append(kept | {array_name: array[..., None]})
        faults.append(kept | {array_name: array.astype(np.float16)})
    for fault in faults:
        with pytest.raises(ValueError, match="configuration"):
            other.load_state_dict(fault)


class Learner(nn.Module):
    """A belief and a head that tells, at each step, whether the first code of the episode was the one numbered 0."""

    def __init__(self, belief: Any, seed: int = 0) -> None:
        super().__init__()
        self.belief, self.net = belief, belief.net
        self.head = nn.utils.skip_init(nn.Linear, belief.size, 1)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.1, generator=torch.Generator().manual_seed(seed))


def train(learner: Learner, optimiser: FlatAdam, rng: torch.Generator, updates: int, steps: int = 12) -> float:
    """Cue at the first step, then noise; share of right answers at the last step over the last 20 updates."""
    right = []
    for _ in range(updates):
        cue = torch.randint(2, (32,), generator=rng)
        code = torch.eye(D)[torch.randint(2, D, (32, steps), generator=rng)]
        code[:, 0] = torch.eye(D)[cue]
        is_first = torch.zeros(32, steps, dtype=torch.bool)
        is_first[:, 0] = True
        out, _ = learner.belief.sequence(code, torch.zeros(32, steps, K), is_first, learner.belief.initial(32))
        logit = learner.head(out[:, -1]).squeeze(1)
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logit, cue.float()).backward()
        optimiser.step(1e-2, 1.0)
        right.append(float(((logit > 0) == (cue > 0)).float().mean()))
    return float(np.mean(right[-20:]))


def learner_of(name: str) -> tuple[Learner, FlatAdam]:
    wide: dict[str, Callable[[], Any]] = {}
    for kind, distances in (("transformer", True), ("transformer-contents", False)):
        config = Transformer.Config(width=8, heads=2, window=12, distances=distances)
        wide[kind] = lambda config=config: Transformer(config, D, K, 0)
    wide["tcn"] = lambda: TCN(TCN.Config(width=8, layers=4), D, K, 0)
    learner = Learner(wide.get(name, lambda: BELIEFS[name](D, K, 0))())
    return learner, FlatAdam(learner)


@pytest.mark.parametrize("name", ["memoryless", *TRAINED])
def test_gradients_teach_it_to_remember(name: str) -> None:
    learner, optimiser = learner_of(name)
    share = train(learner, optimiser, torch.Generator().manual_seed(0), 150)
    if name == "memoryless":
        assert 0.4 < share < 0.6
    else:
        assert share >= 0.95


@pytest.mark.parametrize("name", TRAINED)
def test_training_goes_on_from_a_checkpoint_to_the_bit(name: str) -> None:
    learner, optimiser = learner_of(name)
    rng = torch.Generator().manual_seed(0)
    train(learner, optimiser, rng, 3)
    kept = {n: a.copy() for n, a in optimiser.parameters.state().items()}, learner.belief.state_dict(), rng.get_state()
    train(learner, optimiser, rng, 3)
    again, other = learner_of(name)
    other.parameters.load(kept[0])
    again.belief.load_state_dict(kept[1])  # into the optimiser's memory
    rng.set_state(kept[2])
    train(again, other, rng, 3)
    for a, b in zip(learner.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_sweeps_go_on_from_a_checkpoint_to_the_bit() -> None:
    belief = make("hmm")
    belief.update(*data())
    other = make("hmm", seed=1)
    other.load_state_dict(belief.state_dict())
    assert belief.update(*data(seed=2)) == other.update(*data(seed=2))
    assert all(np.array_equal(a, b) for a, b in zip(belief.tables, other.tables, strict=True))


@pytest.mark.parametrize("name", TRAINED)
def test_a_copy_of_a_learner_is_whole(name: str) -> None:
    """Workers copy the module that holds a belief: the copy's belief uses the copy's parameters."""
    learner, _ = learner_of(name)
    twin = copy.deepcopy(learner)
    assert twin.belief.net is twin.net
    out = twin.belief.sequence(*data(), twin.belief.initial(B))[0]
    out.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in twin.net.parameters())
    assert all(p.grad is None or not p.grad.any() for p in learner.net.parameters())


@pytest.mark.parametrize("name", TRAINED)
def test_burn_in_gives_the_same_beliefs_without_gradient(name: str) -> None:
    belief = make(name)
    code, action, is_first = data()
    code.requires_grad_()
    whole, end = belief.sequence(code, action, is_first, used(belief))
    rest, last = burn_in(belief, code, action, is_first, used(belief), 6)
    torch.testing.assert_close(rest, whole[:, 6:], rtol=0, atol=1e-5)
    same(end, last, 1e-5)
    rest.square().sum().backward()
    assert code.grad is not None and not code.grad[:, :6].any() and code.grad[:, 6:].any()
