"""A recurrent actor-critic whose work is done by the kernels of this package: the methods of
`torch_recurrent.TorchRecurrent` for a GRU, without torch."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from .....native.cache import is_cached
from .....store.arrays import Array
from ....optim.parameters import Parameters, orthogonal
from ...types import Acted, Coefs
from ..mlp import kernels
from ..mlp.network import (
    NO_ACTING,
    NO_INDEX,
    NO_MASK,
    NO_ROLLOUT,
    NO_SEEDS,
    NOTHING,
    buffers_of,
    check_buffers,
    limits_of,
    mask_bytes,
    native_rollout,
    share_of,
    start_learning,
    work_space_of,
)
from ..mlp.plan import GROUPS, TILE
from ..simd.threads import Team
from . import kernels as gru_kernels
from .plan import GRUSpec, gru_plan, streams_of

SHARED_FROM = 256  # rows of one pass; fewer are done sooner than a second thread is awake
States = dict[str, Array]  # "h", float32 (B, 1, H), and where the GRU reads the last action "action", float32 (B, actions)


class PackedSequences(NamedTuple):
    """B streams of T steps to learn from: a stream's numbers lie together, because streams are read in random order."""

    data: Array  # uint8 (B * T * stride,): see `gru_kernels.Streams`
    stride: int
    steps: int
    raw: bool  # observations are float32, not bytes
    advantage: Array  # float32 (B * T,), once more
    h: Array  # float32 (B * H,): before the first step
    last: Array  # float32 (B * actions,), or empty
    mask: int = 0  # byte of a record at which its action mask begins; 0: there is none


class FusedRecurrent:
    """The network `spec` with its `parameters`, computed on up to `threads` threads, whose number changes no bit.

    Parameters may be changed from outside: the next call sees it. Only one thread of Python may call at a time, because there
    is one work space. Without `parameters` all are zero.
    """

    compiled: ClassVar[bool] = True  # `epoch` is one kernel call

    def __init__(self, spec: GRUSpec, parameters: Parameters | None = None, threads: int = 1) -> None:
        misfit = spec.fits()
        if misfit is None and parameters and parameters.shapes != spec.shapes:
            misfit = f"{spec} has parameters {spec.shapes}, those given are {parameters.shapes}"
        if misfit:
            raise ValueError(misfit)
        self.spec, self.parameters, self.threads = spec, parameters or Parameters(spec.shapes), threads
        self._team = Team()
        self._reserve(1)

    def _reserve(self, steps: int) -> None:
        """Work space for sequences of `steps` steps."""
        self.steps, (self.plan, self.table) = steps, gru_plan(self.spec, steps)
        self._net, self._learning = work_space_of(self.plan, self.parameters, GROUPS)

    @property
    def compiles(self) -> bool:
        """Whether the first call will compile, for ten seconds and more."""
        return not is_cached(gru_kernels.gru_work)

    def initialise(self, belief_seed: int, seed: int, span: int | None = None) -> None:
        """The parameters of `recurrent.Recurrent` with seed `belief_seed` and of `RecurrentActorCritic`'s heads with `seed`."""
        parts, h = self.parameters.views(self.parameters.flat), self.spec.hidden
        rng = np.random.default_rng([belief_seed, 1])
        for name, part in parts.items():
            if name.startswith("belief_net.weight"):  # each gate's matrix is orthogonal, not all of them on top of each other
                part[...] = np.concatenate([orthogonal(gate.shape, 1.0, rng) for gate in np.split(part, 3)])
            else:
                part[...] = 0.0
        keep = parts["belief_net.bias_ih_l0"][h : 2 * h]
        keep[:] = 1.0 if span is None else np.log(rng.uniform(1, span - 1, h))
        rng = np.random.default_rng(seed)
        for name, gain in (("policy_head", 0.01), ("value_head", 1.0)):
            part = parts[f"{name}.weight"]
            part[...] = orthogonal(part.shape, gain, rng)

    def initial(self, n: int) -> States:
        """States of n streams at the start of an episode."""
        last = {"action": np.zeros((n, self.spec.actions), np.float32)} if self.spec.reads_action else {}
        return {"h": np.zeros((n, 1, self.spec.hidden), np.float32)} | last

    def outputs(
        self, obs: Array, state: States, scale: Array | None = None, mask: Array | None = None
    ) -> tuple[Array, Array, States]:
        """Logits or means float32 (B, actions), values float32 (B,), and states after B streams have seen `obs` (B, ...).

        The new states assume that the likeliest action is taken now. `obs`: uint8 or float32. `scale`, float32 (2, D): what to
        subtract, then what to multiply by; the result is clipped to +-10. Changes no argument.
        """
        outputs, value = np.empty((len(obs), self.spec.actions), np.float32), np.empty(len(obs), np.float32)
        acting = NO_ACTING._replace(value=value, outputs=outputs.reshape(-1))
        after = self._act(kernels.OUTPUTS, obs, state, scale, acting, 0, 0)
        return outputs, value, self.states(after, self._likeliest(outputs, mask))

    def act(
        self,
        obs: Array,
        state: States,
        seed: int,
        scale: Array | None = None,
        greedy: bool = False,
        counter: int = 0,
        mask: Array | None = None,
    ) -> tuple[Acted, States]:
        """Actions of B streams that see `obs` (B, ...), sampled from the stream `seed`, or the likeliest ones; and new states.

        Where an episode begins, `state` must be that of `initial`. Stream i draws number `counter` + i of the stream `seed`
        (as many draws as an action has parts): the same in any batch. Changes no argument. With `greedy`
        log-probability and entropy are nan.
        """
        if greedy:
            outputs, value, after = self.outputs(obs, state, scale, mask)
            unknown = np.full(len(obs), np.nan, np.float32)
            return Acted(self._likeliest(outputs, mask), unknown, unknown, value), after
        acted = buffers_of(self.spec, len(obs))
        choice, move = self._actions(acted.action)
        acting = kernels.Acting(
            choice=choice, move=move, legal=NOTHING, bounds=NOTHING, log_prob=acted.log_prob, entropy=acted.entropy,
            value=acted.value, outputs=NOTHING, mask=mask_bytes(self.spec, mask, len(obs)),
        )  # fmt: skip
        h = self._act(kernels.SAMPLE, obs, state, scale, acting, seed, counter)
        return acted, self.states(h, acted.action)

    def _act(
        self, task: int, obs: Array, state: States, scale: Array | None, acting: kernels.Acting, seed: int, counter: int
    ) -> Array:
        rows = len(obs)
        data, stride, raw = self._rows(obs)
        h, last = self._state(state, rows)
        after = np.empty_like(h)
        streams = gru_kernels.Streams(data, stride, 1, raw, self._scale(scale), NO_INDEX, NOTHING, h, last, after, 0, NOTHING)
        seeds = np.array([seed % 2**64], np.uint64)
        self._work(self._threads(rows), task, False, streams, acting, rows, max(rows, 1), seeds=seeds, counter=counter)
        return after

    def _threads(self, rows: int) -> int:
        """How many threads act with so many rows."""
        return min(self.threads, -(-rows // TILE), GROUPS) if rows >= SHARED_FROM else 1

    def buffers(self, rows: int) -> Acted:
        """Buffers for what `collect_natively` gives out."""
        return buffers_of(self.spec, rows)

    def can_collect_natively(self, agents: int) -> bool:
        """Whether `collect_natively` can, with so many agents an environment: they must lie in one tile."""
        return TILE % agents == 0

    def collect_natively(
        self, world: Any, buffer: Any, seeds: Array, acted: Acted, state: States, scale: Array | None = None,
        bounds: Array | None = None, final_h: Array | None = None,
    ) -> tuple[float, States, Array]:  # fmt: skip
        """T steps of acting and of a world, as `FusedActorCritic.collect_natively`, from `state` on.

        Returns the world's share of the time, the states after the last step (those of `initial` where an episode begins), and
        float32 (T, N * A, 1, H), in `final_h` if that fits: h after the steps that truncated an episode; other entries mean
        nothing. Calls of `act` and `step` in alternation give the same bits.
        """
        steps, (num_envs, agents) = len(seeds), world.reward.shape
        count, gaussian, native = num_envs * agents, self.spec.head == "gaussian", native_rollout(world, buffer, steps)
        data, stride, raw = self._rows(world.obs.reshape(count, -1))
        check_buffers(acted, self.buffers(steps * count))
        h, last = (part.copy() for part in self._state(state, count))
        if final_h is None or final_h.shape != (steps, count, 1, self.spec.hidden):
            final_h = np.empty((steps, count, 1, self.spec.hidden), np.float32)
        choice, move = self._actions(acted.action)
        actions = buffer.action.reshape(-1)
        acting = kernels.Acting(
            choice=choice if gaussian else actions, move=move, legal=actions if gaussian else NOTHING,
            bounds=limits_of(self.spec, bounds), log_prob=acted.log_prob, entropy=acted.entropy, value=acted.value,
            outputs=NOTHING, mask=NO_MASK,
        )  # fmt: skip
        streams = gru_kernels.Streams(
            data, stride, 1, raw, self._scale(scale), NO_INDEX, NOTHING, h, last, h, 0, final_h.reshape(-1)
        )  # fmt: skip
        self._work(
            self._threads(count), kernels.COLLECT, False, streams, acting, steps * count, count,
            seeds=seeds.astype(np.uint64), world=native,
        )  # fmt: skip
        states: States = {"h": h.reshape(count, 1, -1)}
        if self.spec.reads_action:
            states["action"] = last.reshape(count, -1)
        return share_of(native), states, final_h

    def _likeliest(self, outputs: Array, mask: Array | None = None) -> Array:
        """Actions (B,), or (B, parts); legal ones only of `mask`, bool (B, actions)."""
        if mask is not None:
            outputs = np.where(mask_bytes(self.spec, mask, len(outputs)).reshape(outputs.shape), outputs, -np.inf)
        if self.spec.head == "gaussian":
            return outputs.copy()
        parts = np.split(outputs, np.cumsum(self.spec.sizes)[:-1], 1)
        best: Array = np.stack([part.argmax(1) for part in parts], 1)
        return best if len(parts) > 1 else best[:, 0]

    def states(self, h: Array, action: Array) -> States:
        """States of B streams after a step, of h (B, 1, H) and the sampled actions (B, ...)."""
        states: States = {"h": h.reshape(-1, 1, self.spec.hidden)}
        if self.spec.reads_action and self.spec.head == "gaussian":
            states["action"] = action.copy()
        elif self.spec.reads_action:
            states["action"] = last = np.zeros((len(action), self.spec.actions), np.float32)
            starts = np.cumsum((0, *self.spec.sizes[:-1]))
            last[np.arange(len(action))[:, None], action.reshape(len(action), -1) + starts] = 1.0
        return states

    def batch(
        self, obs: Array, action: Array, is_first: Array, state: States, log_prob: Array, advantage: Array, target: Array,
        value: Array, out: PackedSequences | None = None, mask: Array | None = None,
    ) -> PackedSequences:  # fmt: skip
        """What B streams of T steps are learned from, as `epoch` wants it; in the arrays of `out` if they fit.

        obs (T, B, ...), action (T, B) or (T, B, A), is_first bool (T, B), the last four float32 (T, B). `state`: before the
        first step, (B, ...); where `is_first` is true, states count as those of `initial`.
        """
        steps, many = is_first.shape
        count, parts, gaussian = steps * many, self.spec.parts, self.spec.head == "gaussian"
        flat, size, raw = self._rows(obs.reshape(count, -1))
        facts = [np.ascontiguousarray(x).reshape(-1) for x in (log_prob, advantage, target, value)]
        kind = np.dtype(np.float32 if gaussian else np.int64)
        if action.dtype != kind or action.size != count * parts:
            raise ValueError(f"actions {action.dtype} {action.shape}: expected {kind} ({steps}, {many}, {parts})")
        if any(x.dtype != np.float32 or len(x) != count for x in facts) or is_first.dtype != np.bool_:
            kinds = [(x.dtype.name, len(x)) for x in (*facts, is_first.reshape(-1))]
            raise ValueError(f"facts and is_first {kinds}: expected float32 ({count},), and bool")
        first = -(-size // 4) * 4
        legal, mask_at, stride = mask_bytes(self.spec, mask, count), 0, first + 16 + 4 * parts + 4
        if mask is not None:
            mask_at, stride = stride, stride + -(-self.spec.actions // 4) * 4
        h, last = (x.copy() for x in self._state(state, many))
        if out is None or (out.stride, out.steps, len(out.advantage), out.raw) != (stride, steps, count, raw):
            data, advantages = np.empty(count * stride, np.uint8), np.empty(count, np.float32)
        else:
            data, advantages = out.data, out.advantage
        choice, move = self._actions(np.ascontiguousarray(action))
        flags = np.ascontiguousarray(is_first).reshape(-1)
        rest: Any = (
            many,
            steps,
            flat,
            size,
            first,
            choice,
            move,
            parts,
            flags,
            *facts,
            data,
            stride,
            advantages,
            legal,
            mask_at,
            self.spec.actions,
        )
        threads = min(self.threads, many) if count >= SHARED_FROM else 1
        shares = [(many * t // threads, many * (t + 1) // threads) for t in range(threads)]
        self._team.run([(gru_kernels.record_streams, *share, *rest) for share in shares])
        return PackedSequences(data, stride, steps, raw, advantages, h, last, mask_at)

    def permutation(self, num_samples: int, seed: int, block: int = 1, counter: int = 0) -> Array:
        """0 .. num_samples - 1 in random order, int64, where runs of `block` neighbours stay together.

        Takes up to `num_samples` draws of the random stream `seed`, from number `counter` on.
        """
        index, blocks = np.empty(num_samples, np.int64), np.empty(-(-num_samples // block), np.int64)
        kernels.shuffle(blocks, index, block, np.uint64(seed % 2**64), counter)
        return index

    def gradient(self, batch: PackedSequences, index: Array, coefs: Coefs, scale: Array | None = None) -> Array:
        """The gradient of the mean loss over all steps of the streams `index` goes into `parameters.grad`.

        Advantages are taken as they are. Returns float64 (5,): policy loss, value loss, entropy, KL divergence and clipped
        ratios, summed over steps.
        """
        self._learn(kernels.GRADIENT, batch, index, len(index), coefs, scale, np.zeros(0))
        return self._learning.total.copy()

    def epoch(
        self, batch: PackedSequences, permutation: Array, size: int, coefs: Coefs, learning_rate: float, max_grad_norm: float,
        normalise: bool = True, scale: Array | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """One pass over the streams `permutation` in minibatches of `size` streams, with a step of Adam after each.

        With `normalise` each minibatch standardises its advantages. Returns the five sums of `gradient`, and the norms of
        the gradients before clipping, float64 (minibatches,): if the last is not finite, the epoch ended there, with
        parameters as before that step and the bad gradient in `grad`.
        """
        norms = np.zeros(-(-len(permutation) // max(size, 1)))
        task = kernels.STATISTICS if normalise else kernels.GRADIENT
        rates = (learning_rate, max_grad_norm, *self.parameters.betas, self.parameters.eps)
        done = self._learn(task, batch, permutation, size, coefs, scale, norms, rates)
        return self._learning.total.copy(), norms[: done + 1]

    def _learn(
        self, task: int, batch: PackedSequences, permutation: Array, size: int, coefs: Coefs, scale: Array | None, norms: Array,
        rates: tuple[float, ...] = (),
    ) -> int:  # fmt: skip
        count = len(batch.advantage) // batch.steps
        if size < 1 or len(permutation) < 1 or permutation.min() < 0 or permutation.max() >= count:
            raise ValueError(f"an index of streams must lie in 0..{count - 1} and not be empty, nor a minibatch")
        if batch.steps > self.steps:
            self._reserve(batch.steps)
        learning = start_learning(self._learning, self.parameters, coefs, norms, rates)
        index = np.ascontiguousarray(permutation, np.int64)
        streams = gru_kernels.Streams(
            batch.data, batch.stride, batch.steps, batch.raw, self._scale(scale), index, batch.advantage, batch.h,
            batch.last, NOTHING, batch.mask, NOTHING,
        )  # fmt: skip
        width = streams_of(self.table, batch.steps)
        threads = min(self.threads, -(-min(size, len(permutation)) // width), GROUPS)
        done = self._work(threads, task, bool(rates), streams, NO_ACTING, len(permutation), size, width, learning)
        self.parameters.steps = int(learning.steps[0])
        return done

    def _work(
        self, threads: int, task: int, update: bool, streams: gru_kernels.Streams, acting: kernels.Acting, total: int,
        size: int, width: int = TILE, learning: kernels.Learning | None = None, world: kernels.NativeRollout = NO_ROLLOUT,
        seeds: Array = NO_SEEDS, counter: int = 0,
    ) -> int:  # fmt: skip
        rest: Any = (streams, acting, learning or self._learning, world, total, size, width, seeds, counter)
        return self._team.work(gru_kernels.gru_work, threads, task, update, self._net, self.table, *rest)

    def _actions(self, action: Array) -> tuple[Array, Array]:
        """(choice, move) for the kernels: one of them is `action`, flat, the other empty."""
        return (NO_INDEX, action.reshape(-1)) if self.spec.head == "gaussian" else (action.reshape(-1), NOTHING)

    def _rows(self, obs: Array) -> tuple[Array, int, bool]:
        """Observations, checked: bytes, how many a row, whether they are float32 numbers."""
        inputs = self.spec.inputs
        if obs.dtype not in (np.uint8, np.float32) or obs.size != len(obs) * inputs:
            raise ValueError(f"observations {obs.dtype} {obs.shape}: expected uint8 or float32, {inputs} numbers a row")
        return np.ascontiguousarray(obs).reshape(-1).view(np.uint8), inputs * obs.itemsize, obs.dtype == np.float32

    def _state(self, state: States, many: int) -> tuple[Array, Array]:
        """States of `many` streams, checked: h and last action, flat."""
        wanted = {name: (part.shape[1:], part.dtype) for name, part in self.initial(0).items()}
        found = {name: (part.shape[1:], part.dtype) for name, part in state.items()}
        if wanted != found or any(len(part) != many for part in state.values()):
            raise ValueError(f"states {found}: expected {wanted}, and {many} of each")
        h, last = (np.ascontiguousarray(state[name]).reshape(-1) if name in state else NOTHING for name in ("h", "action"))
        return h, last

    def _scale(self, scale: Array | None) -> Array:
        if scale is None:
            return NOTHING
        if scale.shape != (2, self.spec.inputs) or scale.dtype != np.float32:
            raise ValueError(f"scale {scale.dtype} {scale.shape}: expected float32 (2, {self.spec.inputs})")
        return np.ascontiguousarray(scale).reshape(-1)
