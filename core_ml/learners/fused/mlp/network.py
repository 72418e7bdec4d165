"""An actor-critic whose work is done by the kernels of this package."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .....native.cache import kept
from .....store.arrays import Array
from ....optim.parameters import Parameters, aligned
from ...types import Acted, Coefs
from ..simd.threads import Team
from . import kernels
from .plan import GROUPS, TILE, L, MLPSpec, P, Plan, plan

SHARED_FROM = 512  # rows of one pass; fewer are done sooner than a second thread is awake
NOTHING, NO_INDEX = np.empty(0, np.float32), np.empty(0, np.int64)
NO_ACTING = kernels.Acting(NO_INDEX, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
NO_BYTES, NO_FLAGS, NO_SEEDS = np.empty(0, np.uint8), np.empty(0, np.bool_), np.zeros(1, np.uint64)
NO_NUMBERS, CLOCK = np.empty(0), np.zeros(4, np.int64)
NO_WORLD = kernels.World(
    0, 0, 0, 0, 1, 0, 0, NO_BYTES, NO_BYTES, NOTHING, NO_FLAGS, NO_FLAGS, NO_NUMBERS, NO_INDEX,
    NO_BYTES, NO_BYTES, NOTHING, NO_FLAGS, NO_FLAGS, NO_NUMBERS, NO_INDEX, CLOCK, CLOCK.ctypes.data,
)  # fmt: skip


class Records(NamedTuple):
    """B rows to learn from: what belongs to one lies side by side, because rows are taken in random order."""

    data: Array  # uint8 (B * stride,): observation, float32 log-probability, advantage, target, value, and the action's parts
    stride: int
    raw: bool  # observations are float32, not bytes
    advantage: Array  # float32 (B,), once more


def memory_of(plan: Plan, memory: Parameters, groups: int) -> tuple[kernels.Net, kernels.Learning]:
    """The memory of kernels that work on `groups` groups of tiles at a time."""
    work = aligned(groups, plan[P.WORK])
    for layer in plan.layers:  # the columns of ones, which no pass touches
        at, stride = layer[L.SOURCE], layer[L.SOURCE_STRIDE]
        work[:, at : at + TILE * stride].reshape(groups, TILE, stride)[:, :, layer[L.ONES]] = 1.0
    net = kernels.Net(
        plan.layers, plan.whole, memory.flat, np.full(memory.flat.size, np.nan, np.float32), aligned(plan[P.PACKED]),
        work.reshape(-1), aligned(groups * plan[P.GROUP]), np.zeros(groups * 8), np.zeros(2, np.float32),
    )  # fmt: skip
    learning = kernels.Learning(
        np.zeros(9), memory.grad, memory.mean, memory.square, np.zeros(1, np.int64), np.zeros(5), np.zeros(0)
    )
    return net, learning


def native_of(world: Any, kept: Any, steps: int) -> kernels.World:
    """An `envs.core.Native` and the memory `kept` for what happens in `steps` steps, as kernels take them."""
    actions, wanted = kept.action, (steps, len(world.reward), *world.action_shape)
    if actions.shape != wanted or actions.dtype != world.action_dtype or not actions.flags.c_contiguous:
        raise ValueError(
            f"memory for actions is {actions.dtype} {actions.shape}: the world wants {world.action_dtype} {wanted}"
        )
    flat: list[Any] = [
        array.reshape(-1).view(np.uint8) if name.endswith("obs") else array.reshape(-1)
        for source in (world, kept)
        for name in ("obs", "final_obs", "reward", "terminated", "truncated", "ended_return", "ended_length")
        for array in [getattr(source, name)]
    ]
    for here, there in zip(flat[:7], flat[7:], strict=True):
        if there.size != steps * here.size or there.dtype != here.dtype:
            raise ValueError(f"memory for {steps} steps is {there.dtype} {there.shape}, of one step {here.dtype} {here.shape}")
    agents, clock = world.reward.shape[1], np.zeros(4, np.int64)
    tables = world.step, world.table, world.reals, world.limit, agents, actions.ctypes.data, actions[0, 0, 0].nbytes
    return kernels.World(*[*tables, *flat, clock, clock.ctypes.data])


def share_of(world: kernels.World) -> float:
    """The world's share of the time that exploring took."""
    return float(world.clock[2] / world.clock[3]) if world.clock[3] else 0.0


def buffers_of(spec: Any, rows: int) -> Acted:
    """Memory for what acting with an MLPSpec or a GRUSpec gives out."""
    gaussian, parts = spec.head == "gaussian", spec.parts
    action = np.empty((rows, parts) if gaussian or parts > 1 else rows, np.float32 if gaussian else np.int64)
    return Acted(action, *(np.empty(rows, np.float32) for _ in range(3)))


def check_buffers(out: Acted, wanted: Acted) -> None:
    for array, like in zip(out, wanted, strict=True):
        if array.shape != like.shape or array.dtype != like.dtype or not array.flags.c_contiguous:
            raise ValueError(f"a buffer is {array.dtype} {array.shape}: expected {like.dtype} {like.shape}, in one piece")


def limits_of(spec: Any, bounds: Array | None) -> Array:
    """What a gaussian's actions are cut to, flat."""
    if spec.head == "gaussian" and (bounds is None or bounds.shape != (2, spec.parts) or bounds.dtype != np.float32):
        raise ValueError(f"bounds must be float32 (2, {spec.parts})")
    return NOTHING if bounds is None else np.ascontiguousarray(bounds).reshape(-1)


class FusedActorCritic:
    """`spec` computed with `memory`, on up to `threads` threads, whose number changes no bit.

    Whoever else changes the parameters (a loaded checkpoint, torch's views of them) is noticed at the next call. Not for
    several threads of Python at a time: the work space is one. Without `memory` all parameters are zero.
    """

    def __init__(self, spec: MLPSpec, memory: Parameters | None = None, threads: int = 1) -> None:
        misfit = spec.fits() or (None if spec.value else "an actor-critic has a value head")
        if misfit is None and memory and memory.shapes != spec.shapes:
            misfit = f"{spec} has parameters {spec.shapes}, the memory {memory.shapes}"
        if misfit:
            raise ValueError(misfit)
        self.spec, self.memory, self.threads = spec, memory or Parameters(spec.shapes), threads
        self.plan = plan(spec)
        self._team = Team()
        self._net, self._learning = memory_of(self.plan, self.memory, GROUPS)

    @property
    def compiles(self) -> bool:
        """Whether the first call will compile, for ten seconds and more."""
        return not kept(kernels.work)

    def outputs(self, obs: Array, scale: Array | None = None) -> tuple[Array, Array]:
        """Logits or means float32 (B, actions), and values float32 (B,), of observations (B, ...).

        `obs`: uint8 or float32. `scale`, float32 (2, D): what to subtract, then what to multiply by; the result is cut at +-10.
        """
        outputs, value = np.empty((len(obs), self.spec.actions), np.float32), np.empty(len(obs), np.float32)
        acting = NO_ACTING._replace(value=value, outputs=outputs.reshape(-1))
        self._work(kernels.OUTPUTS, self._rows(obs, scale), acting, len(obs))
        return outputs, value

    def buffers(self, rows: int) -> Acted:
        """Memory for what `act` gives out."""
        return buffers_of(self.spec, rows)

    def act(self, obs: Array, seed: int, counter: int = 0, scale: Array | None = None, out: Acted | None = None) -> Acted:
        """Sampled actions for observations as in `outputs`, into `out` if given.

        Row i draws number `counter` + i of the stream `seed` (as many draws as an action has parts): the same in any batch.
        """
        rows = self._rows(obs, scale)
        if out is None:
            out = self.buffers(len(obs))
        else:
            check_buffers(out, self.buffers(len(obs)))
        choice, move = self._actions(out.action)
        acting = kernels.Acting(choice, move, NOTHING, NOTHING, *out[1:], NOTHING)
        self._work(kernels.SAMPLE, rows, acting, len(obs), seeds=np.array([seed % 2**64], np.uint64), counter=counter)
        return out

    def can_collect_natively(self, agents: int) -> bool:
        """Whether `collect_natively` can, with so many agents a copy: they must lie in one tile."""
        return TILE % agents == 0

    def collect_natively(
        self, world: Any, kept: Any, seeds: Array, acted: Acted, scale: Array | None = None, bounds: Array | None = None
    ) -> float:
        """Act and step the copies of a world, over and over, without coming back to Python; each thread has its own copies.

        `world` is an `envs.core.Native`; what happens goes into `kept`, an object with arrays `obs`, `action`, `reward`,
        `terminated`, `truncated`, `final_obs` (where truncated), `ended_return` and `ended_length` (where an episode ended),
        whose first axis is T steps and whose others are those of the world's; and into `acted`, from `buffers(T * N * A)`.
        Step t draws from seeds[t] as `act` does: `act` and a step in turns, from Python, give the same bits. `bounds`,
        float32 (2, D): a gaussian's actions are cut to these for the world. Returns the world's share of the time.
        """
        steps, (copies, agents) = len(seeds), world.reward.shape
        rows = self._rows(world.obs.reshape(copies * agents, -1), scale)
        choice, move = self._actions(acted.action)
        gaussian = self.spec.head == "gaussian"
        native, actions = native_of(world, kept, steps), kept.action
        legal = actions.reshape(-1) if gaussian else NOTHING
        if not gaussian:
            choice = actions.reshape(-1)
        limits = limits_of(self.spec, bounds)
        check_buffers(acted, self.buffers(steps * copies * agents))
        acting = kernels.Acting(choice, move, legal, limits, *acted[1:], NOTHING)
        count = copies * agents
        self._work(kernels.EXPLORE, rows, acting, steps * count, seeds=seeds.astype(np.uint64), size=count, world=native)
        return share_of(native)

    def records(
        self, obs: Array, action: Array, log_prob: Array, advantage: Array, target: Array, value: Array,
        out: Records | None = None,
    ) -> Records:  # fmt: skip
        """What B rows are learned from, as `gradient` and `epoch` want it; in the memory of `out` if that fits.

        `obs` and `action` as `act` takes and gives them; the others float32 (B,): log-probability and value when acting,
        advantage, and value target.
        """
        rows, facts = self._rows(obs, None), [np.ascontiguousarray(x).reshape(-1) for x in (log_prob, advantage, target, value)]
        count, parts = len(obs), self.spec.parts
        kind = np.dtype(np.float32 if self.spec.head == "gaussian" else np.int64)
        if action.dtype != kind or action.size != count * parts:
            raise ValueError(f"actions {action.dtype} {action.shape}: expected {kind} ({count}, {parts})")
        if any(x.dtype != np.float32 or len(x) != count for x in facts):
            raise ValueError(f"facts {[(x.dtype.name, len(x)) for x in facts]}: expected float32 ({count},)")
        first = -(-rows.stride // 4) * 4
        stride = first + 16 + 4 * parts
        if out is None or out.stride != stride or len(out.data) != count * stride or out.raw != rows.raw:
            out = Records(np.empty(count * stride, np.uint8), stride, rows.raw, np.empty(count, np.float32))
        out.advantage[:] = facts[1]
        choice, move = self._actions(np.ascontiguousarray(action))
        threads = self._threads(count)
        shares = [(count * t // threads, count * (t + 1) // threads) for t in range(threads)]
        rest: Any = (rows.data, rows.stride, first, choice, move, parts, *facts, out.data, stride)
        self._team.run([(kernels.record, *share, *rest) for share in shares])
        return out

    def order(self, rows: int, seed: int, counter: int = 0, block: int = 1) -> Array:
        """0 .. rows - 1 in random order, int64; takes up to `rows` draws of the stream `seed`, from number `counter` on.

        Runs of `block` rows stay together.
        """
        order, blocks = np.empty(rows, np.int64), np.empty(-(-rows // block), np.int64)
        kernels.shuffle(blocks, order, block, np.uint64(seed % 2**64), counter)
        return order

    def gradient(self, records: Records, index: Array, coefs: Coefs, scale: Array | None = None) -> Array:
        """The gradient of the mean loss over the rows `index` goes into the memory's `grad`.

        Advantages are taken as they are. Returns float64 (5,): policy loss, value loss, entropy, KL divergence and clipped
        ratios, summed over rows.
        """
        self._learn(kernels.GRADIENT, records, index, len(index), coefs, scale, np.zeros(0))
        return self._learning.total.copy()

    def epoch(
        self, records: Records, order: Array, size: int, coefs: Coefs, learning_rate: float, max_grad_norm: float,
        normalise: bool = True, scale: Array | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """One pass over the rows `order` in minibatches of `size`, with a step of Adam after each.

        With `normalise` each minibatch standardises its advantages. Returns the five sums of `gradient`, and the norms of
        the gradients before clipping, float64 (minibatches,): if the last is not finite, the epoch ended there, with
        parameters as before that step and the bad gradient in `grad`.
        """
        norms = np.zeros(-(-len(order) // max(size, 1)))
        task = kernels.STATISTICS if normalise else kernels.GRADIENT
        rates = (learning_rate, max_grad_norm, *self.memory.betas, self.memory.eps)
        done = self._learn(task, records, order, size, coefs, scale, norms, rates)
        return self._learning.total.copy(), norms[: done + 1]

    def _learn(
        self, task: int, records: Records, order: Array, size: int, coefs: Coefs, scale: Array | None,
        norms: Array, rates: tuple[float, ...] = (),
    ) -> int:  # fmt: skip
        count = len(records.data) // records.stride
        if size < 1 or len(order) < 1 or order.min() < 0 or order.max() >= count:
            raise ValueError(f"an index of rows must lie in 0..{count - 1} and not be empty, nor a minibatch")
        learning = self._learning._replace(norms=norms)
        value_clip = -1.0 if coefs.value_clip is None else coefs.value_clip
        learning.coefs[:4] = coefs.clip_coef, value_clip, coefs.vf_coef, coefs.ent_coef
        learning.coefs[4 : 4 + len(rates)] = rates
        learning.total[:] = 0.0
        learning.steps[0] = self.memory.steps
        order = np.ascontiguousarray(order, np.int64)
        rows = kernels.Rows(records.data, records.stride, records.raw, self._scale(scale), order, records.advantage)
        done = self._work(task, rows, NO_ACTING, len(order), size=size, learning=learning, update=bool(rates))
        self.memory.steps = int(learning.steps[0])
        return done

    def _work(
        self, task: int, rows: kernels.Rows, acting: kernels.Acting, total: int, seeds: Array = NO_SEEDS, counter: int = 0,
        size: int = 0, learning: kernels.Learning | None = None, update: bool = False, world: kernels.World = NO_WORLD,
    ) -> int:  # fmt: skip
        size = size or max(total, 1)
        threads = self._threads(size)
        last: Any = (task, update, self._net, rows, acting, learning or self._learning, world, total, size, seeds, counter)
        return self._team.work(kernels.work, threads, *last)

    def _threads(self, rows: int) -> int:
        return min(self.threads, -(-rows // TILE), GROUPS) if rows >= SHARED_FROM else 1

    def _actions(self, action: Array) -> tuple[Array, Array]:
        """(choice, move) for the kernels: one of them is `action`, flat, the other empty."""
        return (NO_INDEX, action.reshape(-1)) if self.spec.head == "gaussian" else (action.reshape(-1), NOTHING)

    def _rows(self, obs: Array, scale: Array | None) -> kernels.Rows:
        """Observations, checked and flat."""
        inputs = self.spec.inputs
        if obs.dtype not in (np.uint8, np.float32) or obs.size != len(obs) * inputs:
            raise ValueError(f"observations {obs.dtype} {obs.shape}: expected uint8 or float32, {inputs} numbers a row")
        data = np.ascontiguousarray(obs).reshape(-1).view(np.uint8)
        return kernels.Rows(data, inputs * obs.itemsize, obs.dtype == np.float32, self._scale(scale), NO_INDEX, NOTHING)

    def _scale(self, scale: Array | None) -> Array:
        if scale is None:
            return NOTHING
        if scale.shape != (2, self.spec.inputs) or scale.dtype != np.float32:
            raise ValueError(f"scale {scale.dtype} {scale.shape}: expected float32 (2, {self.spec.inputs})")
        return np.ascontiguousarray(scale).reshape(-1)
