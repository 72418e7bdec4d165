"""Policy gradient from REINFORCE to generalised advantages (Williams 1992; Sutton et al. 2000; Mnih et al. 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...envs.batch import Native
from ...store.arrays import Array, check_arrays
from ..protocol import Carry, Mode, PartRow, Rollout, RolloutBuffer, Spaces
from ..registry import agent
from ..slots.rewards import Bonuses, Rewards
from .actor import Actor
from .parts import ActorConfig, Parts, check_finite, configured_steps, load_into, metrics_of, scheduled, state_of
from .ppo import act, run_epoch

if TYPE_CHECKING:
    from ..slots.encoding import Encoding

UNCLIPPED = 1e6  # a clip range that no ratio leaves
WHOLE = ("return", "discounted", "baseline", "critic")  # estimates that wait for the end of an episode
WITH_CRITIC = ("critic", "td", "gae")


@agent("policy-gradient")
class PolicyGradient:
    """One step of Adam per rollout along the mean of grad log pi(a|s) A; `advantage` says what A is.

    immediate   r_t                                     the reward of the step alone
    return      r_t + r_{t+1} + ...                     REINFORCE with return-to-go
    discounted  G_t = r_t + gamma r_{t+1} + ...
    baseline    G_t - b_t, b_t the mean return of earlier updates at time step t (`baseline_steps=1`: at all)
    critic      G_t - V(s_t), V learned from G_t        Monte-Carlo critic
    td          r_t + gamma V(s_{t+1}) - V(s_t)         advantage actor-critic
    gae         sum of (gamma lambda)^l td_{t+l}        between td (lambda 0) and critic (lambda 1)

    PPO's loss has this gradient where the ratio of new to old probability is 1 (Huang et al. 2022, "A2C is a special case
    of PPO", arXiv:2205.09123): one epoch over one minibatch, without clipping. So PPO's learners compute it, fused or torch.

    return, discounted, baseline and critic learn from whole episodes: steps of an unfinished episode wait in a buffer until it
    ends (`core_ml/data/episodes.py`). A step that waited has the importance weight pi(a|s) / pi_then(a|s) of its own action.
    The other actions of its episode are older, too: a bias that is small where updates are small, and zero where `num_steps`
    is a multiple of a fixed episode length. A truncated episode ends there with no value beyond, except with critic, which
    adds gamma V of the last observation, as td and gae do.
    """

    masks: ClassVar[bool] = True

    class Config(ActorConfig):
        advantage: Literal["immediate", "return", "discounted", "baseline", "critic", "td", "gae"] = Field(
            "gae", description="the weight A of an action's log-probability"
        )
        num_steps: int = Field(32, ge=1, le=100_000, description="steps per environment between updates")
        learning_rate: float = Field(3e-3, gt=0, le=10, description="of Adam, at the start")
        schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="learning rate over the run")
        gamma: float = Field(0.99, ge=0, le=1, description="discount per step; not used by immediate and return")
        gae_lambda: float = Field(0.95, ge=0, le=1, description="for advantage=gae; 0: td, 1: critic")
        baseline_steps: int = Field(
            1000,
            ge=1,
            le=1_000_000,
            description="advantage=baseline: time steps with means of their own; later ones share one",
        )
        baseline_decay: float = Field(0.9, ge=0, le=1, description="weight of earlier updates in the baseline, per update")
        buffer_size: int = Field(65_536, ge=1, le=2**28, description="steps of unfinished episodes that fit, all environments")
        ent_coef: float = Field(0.01, ge=0, le=10, description="weight of the entropy bonus")
        vf_coef: float = Field(0.5, ge=0, le=100, description="weight of the critic's loss, where there is one")
        max_grad_norm: float = Field(0.5, ge=0, le=1e6, description="0: no clipping")
        normalise_advantage: bool = Field(False, description="standardise advantages over the update: one more baseline")
        shared_trunk: bool = Field(False, description="policy and value read the same features")
        bonus: Bonuses = Field((), description="intrinsic rewards that are added to the world's, such as rnd")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        from ...core_ml.data.episodes import WholeEpisodes
        from ...core_ml.maths.returns import RunningMean

        self.config = config
        self.actor = Actor("policy-gradient", config, spaces, seed, threads)
        self.learner, self.note = self.actor.learner, self.actor.note
        self.rewards = Rewards(config.bonus, spaces, config.gamma, seed)
        self._samples: Any = None  # the last update's samples as the learner takes them; the next one reuses their arrays
        a, actor = spaces.num_agents, self.actor
        dtype = np.uint8 if spaces.observation.dtype == np.uint8 else np.float32
        kinds: dict[str, tuple[tuple[int, ...], Any]] = {
            "obs": ((a, actor.input.size), dtype),
            "action": ((a, *actor.actions.shape), np.float32 if actor.actions.continuous else np.int64),
            "log_prob": ((a,), np.float32), "value": ((a,), np.float32),
        }  # fmt: skip
        if spaces.masked:
            kinds["mask"] = (a, actor.actions.size), np.bool_
        self.episodes = WholeEpisodes(config.buffer_size, a, kinds) if config.advantage in WHOLE else None
        self.baseline = RunningMean(config.baseline_steps, config.baseline_decay) if config.advantage == "baseline" else None

    num_steps = property(configured_steps)

    @property
    def encoding(self) -> Encoding | None:
        """The encoder in its slot; see `protocol.Encodes`."""
        return self.actor.encoding

    def initial(self, n: int) -> None:
        return None

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        return act(self.actor, obs, carry, mode, mask)

    def can_collect_natively(self, agents: int) -> bool:
        return self.actor.can_collect_natively(agents)

    def collect_natively(self, world: Native, buffer: RolloutBuffer, carry: Carry) -> tuple[dict[str, Array], float, Carry]:
        return self.actor.collect_natively(world, buffer, carry)

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        from ...core_ml.maths.returns import gae

        batch, paid = self.rewards.add(batch)
        o, actor, reward, value = self.config, self.actor, batch.reward, batch.extras["value"]
        terminated, truncated = batch.terminated[:, :, None], batch.truncated[:, :, None]
        done, late, rows = terminated | truncated, 0, actor.input.rows(batch.obs)
        next_value = actor.next_values(batch) if o.advantage in WITH_CRITIC else np.zeros_like(value)
        facts = {"obs": rows, "action": actor.actions.sampled(batch), "log_prob": batch.extras["log_prob"], "value": value}
        if batch.mask is not None:
            facts["mask"] = batch.mask

        # The weight A_t of each action, and the target of V.
        if o.advantage == "immediate":
            # A_t = r_t
            advantage, target = reward, value
        elif o.advantage == "td" or o.advantage == "gae":
            # A_t = sum_l (gamma lambda)^l (r_{t+l} + gamma V(s_{t+l+1}) - V(s_{t+l}))
            trace = o.gae_lambda if o.advantage == "gae" else 0.0
            advantage = gae(reward, value, next_value, terminated, done, o.gamma, trace)
            target = advantage + value
        else:
            # G_t = r_t + gamma G_{t+1}, once the episode is over
            gamma = 1.0 if o.advantage == "return" else o.gamma
            facts, target, time, late = self._whole(facts, reward, next_value * truncated, done[:, :, 0], gamma)
            advantage = target
            if self.baseline:
                # A_t = G_t - b_t
                time = np.broadcast_to(time[:, None], target.shape)
                advantage = target - self.baseline.at(time)
                self.baseline.update(time, target)
            elif o.advantage == "critic":
                # A_t = G_t - V(s_t)
                advantage = target - facts["value"]
        metrics = self._step(facts, advantage, target, progress) if advantage.size else {"rows": 0.0}
        metrics |= actor.update_auxiliary(batch, progress)
        return metrics | paid | ({"late": late * reward.shape[2] / advantage.size} if late else {})

    def _whole(
        self, facts: dict[str, Array], reward: Array, bootstrap: Array, done: Array, gamma: float
    ) -> tuple[dict[str, Array], Array, Array, int]:
        """The steps whose episodes are over now, with their returns."""
        from ...core_ml.data.episodes import Full

        assert self.episodes is not None
        try:
            ended = self.episodes.take(facts, reward, bootstrap, done, gamma)
        except Full as full:
            raise ValueError(
                f"agent policy-gradient: {full}: raise agent.buffer_size, have episodes end sooner (env.time_limit), or take "
                "agent.advantage=td, which does not wait for their end"
            ) from None
        return ended.facts, ended.return_, ended.time, ended.late

    def _step(self, facts: dict[str, Array], advantage: Array, target: Array, progress: float) -> dict[str, float]:
        """One step of Adam along the gradient of mean(log pi A) + ent_coef H - vf_coef (V - target)^2 / 2."""
        from ...core_ml.learners.types import Coefs
        from ...core_ml.maths.returns import explained_variance

        o, actor, learner = self.config, self.actor, self.learner
        critic, rows = o.advantage in WITH_CRITIC, advantage.size
        learning_rate = o.learning_rate * scheduled(o.schedule, progress)
        action = facts["action"].reshape(rows, *[-1] * actor.actions.continuous)
        log_prob, advantage, target, value = (
            np.ascontiguousarray(x).reshape(-1) for x in (facts["log_prob"], advantage, target, facts["value"])
        )
        obs = facts["obs"].reshape(rows, -1)
        self._samples = learner.batch(obs, action, log_prob, advantage, target, value, self._samples, facts.get("mask"))
        coefs = Coefs(UNCLIPPED, None, o.vf_coef if critic else 0.0, o.ent_coef)
        sums, norms = run_epoch(  # all samples are one minibatch
            learner, self._samples, np.arange(rows), rows, coefs, learning_rate, o.max_grad_norm, o.normalise_advantage,
            actor.input.scale(),
        )  # fmt: skip
        check_finite(learner, norms[-1], sums)
        metrics = metrics_of(sums / rows, explained_variance(value, target), learning_rate, float(norms[-1]))
        unknown = {"clip_fraction"} if critic else {"clip_fraction", "loss/value", "explained_variance"}
        return {name: metric for name, metric in metrics.items() if name not in unknown} | {"rows": float(rows)}

    def _parts(self) -> Parts:
        """What the agent has beside the network."""
        return [("episodes.", self.episodes), ("baseline.", self.baseline)]

    def policy_module(self) -> Any:
        from ._exported import actor_module

        return actor_module(self.actor)

    def parts(self) -> list[PartRow]:
        return self.actor.outline()

    def state_dict(self) -> dict[str, Array]:
        return self.actor.state_dict() | state_of(self._parts()) | self.rewards.state()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "agent policy-gradient")
        own, state = state_of(self._parts()), self.rewards.load(state)
        self.actor.load_state_dict({name: array for name, array in state.items() if name not in own})
        load_into(self._parts(), state)
