"""A Q-network whose work is done by the kernels of this package: the methods of `torch_q.TorchQ`, without torch."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .....native.cache import is_cached
from .....store.arrays import Array
from ....data.transitions import Learned, Replay, Sample
from ....optim.parameters import Parameters, aligned
from ..mlp.network import NO_INDEX, NO_MASK, NO_ROLLOUT, NOTHING, native_rollout, share_of, work_space_of
from ..mlp.plan import TILE, MLPSpec, P, plan
from . import kernels as q_kernels

NO_TRANSITIONS = q_kernels.TransitionBatch(NO_INDEX, NOTHING, NOTHING, NOTHING, NOTHING, NO_MASK)


class FusedQ:
    """`spec`, which has no value head, all parameters zero; with `frozen` a target network, a copy since the last `sync`."""

    compiled: ClassVar[bool] = True

    def __init__(self, spec: MLPSpec, frozen: bool = True) -> None:
        misfit = spec.fits() or ("a Q-network has no value head" if spec.value else None)
        if misfit:
            raise ValueError(misfit)
        self.spec, self.parameters, self.plan = spec, Parameters(spec.shapes), plan(spec)
        self._net, self._learning = work_space_of(self.plan, self.parameters, 1)
        self.target = self.parameters.flat.copy() if frozen else self.parameters.flat
        known = np.full(self.target.size, np.nan, np.float32)
        own = q_kernels.Frozen(self.target, known, aligned(self.plan[P.PACKED]))
        self._frozen = own if frozen else q_kernels.Frozen(self._net.flat, self._net.known, self._net.packed)

    @property
    def compiles(self) -> bool:
        """Whether the first call will compile, for ten seconds and more."""
        return not is_cached(q_kernels.q_work)

    def initialise(self, rng: np.random.Generator) -> None:
        self.parameters.initialise_uniform(rng)
        self.sync()

    def sync(self) -> None:
        """The target network becomes what the network is."""
        self.target[:] = self.parameters.flat

    def q(self, obs: Array) -> Array:
        """Values float32 (B, actions) of observations (B, D), uint8 or float32."""
        values = np.empty((len(obs), self.spec.actions), np.float32)
        self._work(q_kernels.OUTPUTS, self._seen(obs), len(obs), outputs=values.reshape(-1))
        return values

    def can_collect_natively(self, agents: int) -> bool:
        """Whether `collect_natively` can, with so many agents an environment: they must lie in one tile."""
        return TILE % agents == 0

    def collect_natively(self, world: Any, buffer: Any, forced: Array) -> float:
        """T steps of acting and of a world. `forced`, int64 (T, N * A): the actions to take, -1 for that of the highest value.

        `world` and `buffer` as in `FusedActorCritic.collect_natively`. Returns the world's share of the time.
        """
        steps, count = forced.shape
        native = native_rollout(world, buffer, steps)
        rows = self._seen(world.obs.reshape(count, -1))
        action = buffer.action.reshape(-1)
        self._work(q_kernels.COLLECT, rows, steps * count, size=count, world=native, forced=forced.reshape(-1), action=action)
        return share_of(native)

    def learn(
        self, replay: Replay, sample: Sample, double: bool, learning_rate: float, max_grad_norm: float, seed: int = 0
    ) -> Learned:
        """A step of Adam for each of the minibatches in `sample`, (K, B) each. `seed` is for networks with noise.

        If the last norm is not finite, learning ended there, with the bad gradient in `parameters.grad`.
        """
        parts, size = sample.row.shape
        flat = {name: np.ascontiguousarray(x).reshape(-1) for name, x in sample._asdict().items()}
        error, masks = np.empty(parts * size, np.float32), replay.next_mask
        transitions = q_kernels.TransitionBatch(
            action=flat["action"],
            return_=flat["return_"],
            discount=flat["discount"],
            weight=flat["weight"],
            error=error,
            mask=NO_MASK if masks is None else masks[flat["next_row"]].reshape(-1).view(np.uint8),
        )
        learning = self._learning._replace(norms=np.zeros(parts))
        learning.coefs[4:] = learning_rate, max_grad_norm, *self.parameters.betas, self.parameters.eps
        learning.total[:] = 0.0
        learning.steps[0] = self.parameters.steps
        seen, then = self._seen(replay.obs, flat["row"]), self._seen(replay.next_obs, flat["next_row"])
        done = self._work(
            q_kernels.LEARN, seen, parts * size, size=size, then=then, transitions=transitions, double=double, learning=learning
        )
        self.parameters.steps = int(learning.steps[0])
        return Learned(error.reshape(parts, size), learning.total[:3] / (parts * size), learning.norms[: done + 1])

    def _seen(self, obs: Array, index: Array = NO_INDEX) -> q_kernels.ObsRows:
        inputs = self.spec.inputs
        if obs.dtype not in (np.uint8, np.float32) or obs.size != len(obs) * inputs:
            raise ValueError(f"observations {obs.dtype} {obs.shape}: expected uint8 or float32, {inputs} numbers a row")
        data = np.ascontiguousarray(obs).reshape(-1).view(np.uint8)
        return q_kernels.ObsRows(data, inputs * obs.itemsize, obs.dtype == np.float32, NOTHING, index)

    def _work(
        self, task: int, rows: q_kernels.ObsRows, total: int, size: int = 0, then: Any = None,
        transitions: Any = NO_TRANSITIONS, double: bool = False, learning: Any = None, forced: Array = NO_INDEX,
        action: Array = NO_INDEX, outputs: Array = NOTHING, world: Any = NO_ROLLOUT,
    ) -> int:  # fmt: skip
        return int(q_kernels.q_work(
            task, self._net, self._frozen, rows, then or rows, transitions, double, learning or self._learning, forced, action,
            outputs, world, total, size or max(total, 1),
        ))  # fmt: skip
