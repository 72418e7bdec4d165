"""An actor-critic whose work is done by the kernels of this package."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from .....native.cache import is_cached
from .....store.arrays import Array
from ....optim.parameters import Parameters, aligned
from ...types import Acted, Coefs
from ..simd.threads import Team
from . import kernels
from .plan import GROUPS, TILE, L, MLPSpec, NetworkTables, P, plan

SHARED_FROM = 512  # rows of one pass; fewer are done sooner than a second thread is awake
NOTHING, NO_INDEX = np.empty(0, np.float32), np.empty(0, np.int64)
NO_SEEDS = np.zeros(1, np.uint64)
NO_MASK = np.empty(0, np.uint8)
NO_ACTING = kernels.Acting(
    choice=NO_INDEX, move=NOTHING, legal=NOTHING, bounds=NOTHING, log_prob=NOTHING, entropy=NOTHING, value=NOTHING,
    outputs=NOTHING, mask=NO_MASK,
)  # fmt: skip
# What a step of a world fills; the buffers of a rollout have the same names after "buffer_". Types as in `envs.batch.Native`.
FILLED = {
    "obs": np.uint8, "final_obs": np.uint8, "reward": np.float32, "terminated": np.bool_, "truncated": np.bool_,
    "ended_return": np.float64, "ended_length": np.int64,
}  # fmt: skip


class PackedBatch(NamedTuple):
    """B samples to learn from: the numbers of one lie side by side, because samples are read in random order."""

    data: Array  # uint8 (B * stride,): observation, float32 log-probability, advantage, target, value, and the action's parts
    stride: int
    raw: bool  # observations are float32, not bytes
    advantage: Array  # float32 (B,), once more
    mask: int = 0  # byte of a record at which its action mask begins; 0: there is none


def work_space_of(plan: NetworkTables, parameters: Parameters, groups: int) -> tuple[kernels.Net, kernels.Learning]:
    """The arrays of kernels that work on `groups` groups of tiles at a time."""
    work = aligned(groups, plan[P.WORK])
    for layer in plan.layers:  # the columns of ones, which no pass touches
        at, stride = layer[L.SOURCE], layer[L.SOURCE_STRIDE]
        work[:, at : at + TILE * stride].reshape(groups, TILE, stride)[:, :, layer[L.ONES]] = 1.0
    net = kernels.Net(
        plan.layers, plan.whole, parameters.flat, np.full(parameters.flat.size, np.nan, np.float32), aligned(plan[P.PACKED]),
        work.reshape(-1), aligned(groups * plan[P.GROUP]), np.zeros(groups * 8), np.zeros(2, np.float32),
    )  # fmt: skip
    learning = kernels.Learning(
        np.zeros(9), parameters.grad, parameters.mean, parameters.square, np.zeros(1, np.int64), np.zeros(5), np.zeros(0)
    )
    return net, learning


def _flat(array: Array, name: str) -> Array:
    """One row of numbers; observations as bytes."""
    return array.reshape(-1).view(np.uint8) if name.endswith("obs") else array.reshape(-1)


def native_rollout(world: Any, buffer: Any, steps: int) -> kernels.NativeRollout:
    """An `envs.batch.Native` and the `buffer` for `steps` steps of it, as kernels take them. Raises ValueError where the
    buffer's arrays do not have the shapes and types of the world's."""
    actions, wanted = buffer.action, (steps, len(world.reward), *world.action_shape)
    if actions.shape != wanted or actions.dtype != world.action_dtype or not actions.flags.c_contiguous:
        raise ValueError(
            f"the buffer of actions is {actions.dtype} {actions.shape}: the world needs {world.action_dtype} {wanted}"
        )
    filled = {name: _flat(getattr(world, name), name) for name in FILLED}
    all_steps = {name: _flat(getattr(buffer, name), name) for name in FILLED}
    for name, of_step in filled.items():
        of_all = all_steps[name]
        if of_all.size != steps * of_step.size or of_all.dtype != of_step.dtype:
            raise ValueError(
                f"the buffer of {name} for {steps} steps is {of_all.dtype} {of_all.shape}, of one step {of_step.dtype} "
                f"{of_step.shape}"
            )
    clock = np.zeros(4, np.int64)
    return kernels.NativeRollout(
        step=world.step, table=world.table, reals=world.reals, limit=world.limit, agents=world.reward.shape[1],
        actions=actions.ctypes.data, action_size=actions[0, 0, 0].nbytes, clock=clock, clock_at=clock.ctypes.data,
        **filled, **{f"buffer_{name}": array for name, array in all_steps.items()},
    )  # fmt: skip


def _no_rollout() -> kernels.NativeRollout:
    """For kernel calls that step no world: empty arrays of the right types."""
    clock = np.zeros(4, np.int64)
    return kernels.NativeRollout(
        step=0, table=0, reals=0, limit=0, agents=1, actions=0, action_size=0, clock=clock, clock_at=clock.ctypes.data,
        **{name: np.empty(0, kind) for name, kind in FILLED.items()},
        **{f"buffer_{name}": np.empty(0, kind) for name, kind in FILLED.items()},
    )  # fmt: skip


NO_ROLLOUT = _no_rollout()


def start_learning(
    learning: kernels.Learning, parameters: Parameters, coefs: Coefs, norms: Array, rates: tuple[float, ...]
) -> kernels.Learning:
    """`learning` for one call of a kernel. `rates`: learning rate, largest norm, Adam's betas and eps; empty for no update."""
    learning.coefs[:4] = coefs.clip_coef, -1.0 if coefs.value_clip is None else coefs.value_clip, coefs.vf_coef, coefs.ent_coef
    learning.coefs[4 : 4 + len(rates)] = rates
    learning.total[:] = 0.0
    learning.steps[0] = parameters.steps
    return learning._replace(norms=norms)


def share_of(world: kernels.NativeRollout) -> float:
    """The world's share of the time of a rollout."""
    return float(world.clock[2] / world.clock[3]) if world.clock[3] else 0.0


def buffers_of(spec: Any, rows: int) -> Acted:
    """Buffers for what acting with an MLPSpec or a GRUSpec gives out."""
    gaussian, parts = spec.head == "gaussian", spec.parts
    action = np.empty((rows, parts) if gaussian or parts > 1 else rows, np.float32 if gaussian else np.int64)
    log_prob, entropy, value = (np.empty(rows, np.float32) for _ in range(3))
    return Acted(action, log_prob, entropy, value)


def mask_bytes(spec: Any, mask: Array | None, rows: int) -> Array:
    """An action mask, bool (..., actions) of `rows` samples, as kernels read it; None: empty. Raises ValueError where it does
    not fit."""
    if mask is None:
        return NO_MASK
    if spec.head == "gaussian" or mask.dtype != np.bool_ or mask.size != rows * spec.actions:
        raise ValueError(f"mask {mask.dtype} {mask.shape}: expected bool ({rows}, {spec.actions}) for discrete actions")
    return np.ascontiguousarray(mask).reshape(-1).view(np.uint8)


def check_buffers(out: Acted, wanted: Acted) -> None:
    for array, like in zip(out, wanted, strict=True):
        if array.shape != like.shape or array.dtype != like.dtype or not array.flags.c_contiguous:
            raise ValueError(f"a buffer is {array.dtype} {array.shape}: expected {like.dtype} {like.shape}, in one piece")


def limits_of(spec: Any, bounds: Array | None) -> Array:
    """Bounds that a gaussian's actions are clipped to, flat. Raises ValueError where they are missing or do not fit."""
    if spec.head == "gaussian" and (bounds is None or bounds.shape != (2, spec.parts) or bounds.dtype != np.float32):
        raise ValueError(f"bounds must be float32 (2, {spec.parts})")
    return NOTHING if bounds is None else np.ascontiguousarray(bounds).reshape(-1)


class FusedActorCritic:
    """The network `spec` with its `parameters`, computed on up to `threads` threads, whose number changes no bit.

    Parameters may be changed from outside (by a loaded checkpoint, or through torch's views of them): the next call sees it.
    Only one thread of Python may call at a time, because there is one work space. Without `parameters` all are zero.
    """

    compiled: ClassVar[bool] = True  # `epoch` is one kernel call

    def __init__(self, spec: MLPSpec, parameters: Parameters | None = None, threads: int = 1) -> None:
        misfit = spec.fits() or (None if spec.value else "an actor-critic has a value head")
        if misfit is None and parameters and parameters.shapes != spec.shapes:
            misfit = f"{spec} has parameters {spec.shapes}, those given are {parameters.shapes}"
        if misfit:
            raise ValueError(misfit)
        self.spec, self.parameters, self.threads = spec, parameters or Parameters(spec.shapes), threads
        self.plan = plan(spec)
        self._team = Team()
        self._net, self._learning = work_space_of(self.plan, self.parameters, GROUPS)

    @property
    def compiles(self) -> bool:
        """Whether the first call will compile, for ten seconds and more."""
        return not is_cached(kernels.work)

    def outputs(self, obs: Array, scale: Array | None = None) -> tuple[Array, Array]:
        """Logits or means float32 (B, actions), and values float32 (B,), of observations (B, ...).

        `obs`: uint8 or float32. `scale`, float32 (2, D): what to subtract, then what to multiply by; the result is clipped to
        +-10.
        """
        outputs, value = np.empty((len(obs), self.spec.actions), np.float32), np.empty(len(obs), np.float32)
        acting = NO_ACTING._replace(value=value, outputs=outputs.reshape(-1))
        self._work(kernels.OUTPUTS, self._rows(obs, scale), acting, len(obs))
        return outputs, value

    def buffers(self, rows: int) -> Acted:
        """Buffers for what `act` gives out."""
        return buffers_of(self.spec, rows)

    def act(
        self,
        obs: Array,
        seed: int,
        counter: int = 0,
        scale: Array | None = None,
        out: Acted | None = None,
        mask: Array | None = None,
    ) -> Acted:
        """Sampled actions for observations as in `outputs`, into `out` if given; legal ones only of `mask`, bool (B, actions).

        Row i draws number `counter` + i of the stream `seed` (as many draws as an action has parts): the same in any batch.
        """
        rows = self._rows(obs, scale)
        if out is None:
            out = self.buffers(len(obs))
        else:
            check_buffers(out, self.buffers(len(obs)))
        choice, move = self._actions(out.action)
        acting = kernels.Acting(
            choice=choice, move=move, legal=NOTHING, bounds=NOTHING, log_prob=out.log_prob, entropy=out.entropy,
            value=out.value, outputs=NOTHING, mask=mask_bytes(self.spec, mask, len(obs)),
        )  # fmt: skip
        self._work(kernels.SAMPLE, rows, acting, len(obs), seeds=np.array([seed % 2**64], np.uint64), counter=counter)
        return out

    def can_collect_natively(self, agents: int) -> bool:
        """Whether `collect_natively` can, with so many agents an environment: they must lie in one tile."""
        return TILE % agents == 0

    def collect_natively(
        self, world: Any, buffer: Any, seeds: Array, acted: Acted, scale: Array | None = None, bounds: Array | None = None
    ) -> float:
        """T steps of acting and of a world in one call; each thread has its own environments.

        `world` is an `envs.batch.Native`; the rollout goes into `buffer`, an object with arrays `obs`, `action`, `reward`,
        `terminated`, `truncated`, `final_obs` (where truncated), `ended_return` and `ended_length` (where an episode ended),
        whose first axis is T steps and whose others are those of the world's; and into `acted`, from `buffers(T * N * A)`.
        Step t draws from seeds[t] as `act` does: calls of `act` and `step` in alternation give the same bits. `bounds`,
        float32 (2, D): a gaussian's actions are clipped to these for the world. Returns the world's share of the time.
        """
        steps, (num_envs, agents) = len(seeds), world.reward.shape
        rows = self._rows(world.obs.reshape(num_envs * agents, -1), scale)
        choice, move = self._actions(acted.action)
        gaussian = self.spec.head == "gaussian"
        native, actions = native_rollout(world, buffer, steps), buffer.action
        legal = actions.reshape(-1) if gaussian else NOTHING
        if not gaussian:
            choice = actions.reshape(-1)
        limits = limits_of(self.spec, bounds)
        check_buffers(acted, self.buffers(steps * num_envs * agents))
        acting = kernels.Acting(
            choice=choice, move=move, legal=legal, bounds=limits, log_prob=acted.log_prob, entropy=acted.entropy,
            value=acted.value, outputs=NOTHING, mask=NO_MASK,
        )  # fmt: skip
        count = num_envs * agents
        self._work(kernels.COLLECT, rows, acting, steps * count, seeds=seeds.astype(np.uint64), size=count, world=native)
        return share_of(native)

    def batch(
        self, obs: Array, action: Array, log_prob: Array, advantage: Array, target: Array, value: Array,
        out: PackedBatch | None = None, mask: Array | None = None,
    ) -> PackedBatch:  # fmt: skip
        """What B rows are learned from, as `gradient` and `epoch` want it; in the arrays of `out` if they fit.

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
        legal, mask_at, stride = mask_bytes(self.spec, mask, count), 0, first + 16 + 4 * parts
        if mask is not None:
            mask_at, stride = stride, stride + -(-self.spec.actions // 4) * 4
        if out is None or (out.stride, len(out.data), out.raw, out.mask) != (stride, count * stride, rows.raw, mask_at):
            out = PackedBatch(np.empty(count * stride, np.uint8), stride, rows.raw, np.empty(count, np.float32), mask_at)
        out.advantage[:] = facts[1]
        choice, move = self._actions(np.ascontiguousarray(action))
        threads = self._threads(count)
        shares = [(count * t // threads, count * (t + 1) // threads) for t in range(threads)]
        rest: Any = (
            rows.data,
            rows.stride,
            first,
            choice,
            move,
            parts,
            *facts,
            out.data,
            stride,
            legal,
            mask_at,
            self.spec.actions,
        )
        self._team.run([(kernels.record, *share, *rest) for share in shares])
        return out

    def permutation(self, num_samples: int, seed: int, block: int = 1, counter: int = 0) -> Array:
        """0 .. num_samples - 1 in random order, int64, where runs of `block` neighbours stay together.

        Takes up to `num_samples` draws of the random stream `seed`, from number `counter` on.
        """
        index, blocks = np.empty(num_samples, np.int64), np.empty(-(-num_samples // block), np.int64)
        kernels.shuffle(blocks, index, block, np.uint64(seed % 2**64), counter)
        return index

    def gradient(self, batch: PackedBatch, index: Array, coefs: Coefs, scale: Array | None = None) -> Array:
        """The gradient of the mean loss over the rows `index` goes into `parameters.grad`.

        Advantages are taken as they are. Returns float64 (5,): policy loss, value loss, entropy, KL divergence and clipped
        ratios, summed over rows.
        """
        self._learn(kernels.GRADIENT, batch, index, len(index), coefs, scale, np.zeros(0))
        return self._learning.total.copy()

    def epoch(
        self, batch: PackedBatch, permutation: Array, size: int, coefs: Coefs, learning_rate: float, max_grad_norm: float,
        normalise: bool = True, scale: Array | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """One pass over the rows `permutation` in minibatches of `size`, with a step of Adam after each.

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
        self, task: int, batch: PackedBatch, permutation: Array, size: int, coefs: Coefs, scale: Array | None,
        norms: Array, rates: tuple[float, ...] = (),
    ) -> int:  # fmt: skip
        count = len(batch.data) // batch.stride
        if size < 1 or len(permutation) < 1 or permutation.min() < 0 or permutation.max() >= count:
            raise ValueError(f"an index of rows must lie in 0..{count - 1} and not be empty, nor a minibatch")
        learning = start_learning(self._learning, self.parameters, coefs, norms, rates)
        index = np.ascontiguousarray(permutation, np.int64)
        rows = kernels.SampleRows(batch.data, batch.stride, batch.raw, self._scale(scale), index, batch.advantage, batch.mask)
        done = self._work(task, rows, NO_ACTING, len(permutation), size=size, learning=learning, update=bool(rates))
        self.parameters.steps = int(learning.steps[0])
        return done

    def _work(
        self, task: int, rows: kernels.SampleRows, acting: kernels.Acting, total: int, seeds: Array = NO_SEEDS,
        counter: int = 0, size: int = 0, learning: kernels.Learning | None = None, update: bool = False,
        world: kernels.NativeRollout = NO_ROLLOUT,
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

    def _rows(self, obs: Array, scale: Array | None) -> kernels.SampleRows:
        """Observations, checked and flat."""
        inputs = self.spec.inputs
        if obs.dtype not in (np.uint8, np.float32) or obs.size != len(obs) * inputs:
            raise ValueError(f"observations {obs.dtype} {obs.shape}: expected uint8 or float32, {inputs} numbers a row")
        data = np.ascontiguousarray(obs).reshape(-1).view(np.uint8)
        return kernels.SampleRows(
            data, inputs * obs.itemsize, obs.dtype == np.float32, self._scale(scale), NO_INDEX, NOTHING, 0
        )

    def _scale(self, scale: Array | None) -> Array:
        if scale is None:
            return NOTHING
        if scale.shape != (2, self.spec.inputs) or scale.dtype != np.float32:
            raise ValueError(f"scale {scale.dtype} {scale.shape}: expected float32 (2, {self.spec.inputs})")
        return np.ascontiguousarray(scale).reshape(-1)
