"""Policy gradient from REINFORCE to generalised advantages (Williams 1992; Sutton et al. 2000; Mnih et al. 2016)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from ...envs.batch import Native
from ...store.arrays import Array, check_arrays
from ..protocol import Carry, Mode, PartRow, Rollout, RolloutBuffer, Spaces
from ..registry import agent
from ..slots.rewards import Bonuses, Rewards
from .actor import Actor, ActorConfig, metrics_of, scheduled

UNCLIPPED = 1e6  # a clip range that no ratio leaves
WHOLE = ("return", "discounted", "baseline", "critic")  # estimates that wait for the end of an episode
WITH_CRITIC = ("critic", "td", "gae")


@agent("policy-gradient")
class PolicyGradient:
    """One step of Adam per rollout along the mean of grad log pi(a|s) A; `advantage` says what A is.

    immediate   r_t                                     what the action was paid, and nothing of what it led to
    return      r_t + r_{t+1} + ...                     REINFORCE with return-to-go
    discounted  G_t = r_t + gamma r_{t+1} + ...
    baseline    G_t - b_t, b_t the mean return of earlier updates at time step t (`baseline_steps=1`: at all)
    critic      G_t - V(s_t), V learned from G_t        Monte-Carlo critic
    td          r_t + gamma V(s_{t+1}) - V(s_t)         advantage actor-critic
    gae         sum of (gamma lambda)^l td_{t+l}        between td (lambda 0) and critic (lambda 1)

    PPO's loss has this very gradient where the ratio of new to old probability is 1 (Huang et al. 2022, "A2C is a special case
    of PPO", arXiv:2205.09123): one epoch over one minibatch, and no clipping. So PPO's learners do it, fused or torch.

    return, discounted, baseline and critic learn from whole episodes: steps of an episode that a rollout cuts wait in `memory`
    until it ends (`core_ml/data/episodes.py`). A step that waited counts by pi(a|s) / pi_then(a|s), the importance weight of
    its own action; that the other actions of its episode were older, too, is a bias, small where updates are, and none where
    `num_steps` is a multiple of a fixed length of episodes. A truncated episode is over for them, and worth nothing beyond,
    but for critic, which like td and gae adds gamma V of its last observation.
    """

    class Config(ActorConfig):
        advantage: Literal["immediate", "return", "discounted", "baseline", "critic", "td", "gae"] = Field(
            "gae", description="what an action's log-probability is weighted with"
        )
        num_steps: int = Field(32, ge=1, le=100_000, description="steps per copy between updates")
        learning_rate: float = Field(3e-3, gt=0, le=10)
        schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="learning rate over the run")
        gamma: float = Field(0.99, ge=0, le=1, description="not for immediate and return")
        gae_lambda: float = Field(0.95, ge=0, le=1, description="of advantage=gae")
        baseline_steps: int = Field(
            1000,
            ge=1,
            le=1_000_000,
            description="advantage=baseline: time steps with means of their own; later ones share one",
        )
        baseline_decay: float = Field(0.9, ge=0, le=1, description="what earlier updates count in the baseline, per update")
        memory: int = Field(65_536, ge=1, le=2**28, description="steps of all copies' episodes under way that fit")
        ent_coef: float = Field(0.01, ge=0, le=10)
        vf_coef: float = Field(0.5, ge=0, le=100, description="weight of the critic's loss, where there is one")
        max_grad_norm: float = Field(0.5, ge=0, le=1e6, description="0: no clipping")
        normalise_advantage: bool = Field(False, description="to mean 0 and deviation 1 over the update: one more baseline")
        shared_trunk: bool = Field(False, description="policy and value read the same features")
        bonus: Bonuses = Field((), description="parts of the reward beside the world's, such as rnd")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        from ...core_ml.data.episodes import WholeEpisodes
        from ...core_ml.maths.returns import RunningMean

        self.config = config
        self.actor = Actor("policy-gradient", config, spaces, seed, threads)
        self.learner, self.note = self.actor.learner, self.actor.note
        self.rewards = Rewards(config.bonus, spaces, config.gamma, seed)
        self._records: Any = None  # memory for what is learned from, kept from update to update
        a, actor = spaces.num_agents, self.actor
        seen = np.uint8 if spaces.observation.dtype == np.uint8 else np.float32
        kinds = {
            "obs": ((a, actor.inputs), seen),
            "action": ((a, *actor.action_shape), np.float32 if actor.continuous else np.int64),
            "log_prob": ((a,), np.float32), "value": ((a,), np.float32),
        }  # fmt: skip
        self.episodes = WholeEpisodes(config.memory, a, kinds) if config.advantage in WHOLE else None
        self.baseline = RunningMean(config.baseline_steps, config.baseline_decay) if config.advantage == "baseline" else None

    @property
    def num_steps(self) -> int:
        return int(self.config.num_steps)

    def initial(self, n: int) -> None:
        return None

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        return self.actor.act(obs, carry, mode)

    def can_collect_natively(self, agents: int) -> bool:
        return self.actor.can_collect_natively(agents)

    def collect_natively(self, world: Native, kept: RolloutBuffer, carry: Carry) -> tuple[dict[str, Array], float, Carry]:
        return self.actor.collect_natively(world, kept, carry)

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        from ...core_ml.maths.returns import gae

        batch, paid = self.rewards.add(batch)
        o, actor, reward, value = self.config, self.actor, batch.reward, batch.extras["value"]
        terminated, truncated = batch.terminated[:, :, None], batch.truncated[:, :, None]
        done, late, rows = terminated | truncated, 0, actor.rows(batch.obs)
        next_value = actor.next_values(batch) if o.advantage in WITH_CRITIC else np.zeros_like(value)
        facts = {"obs": rows, "action": actor.taken(batch), "log_prob": batch.extras["log_prob"], "value": value}

        # What an action is weighted with, and what V is taught.
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
                f"agent policy-gradient: {full}: raise agent.memory, have episodes end sooner (env.time_limit), or take "
                "agent.advantage=td, which does not wait for their end"
            ) from None
        return ended.facts, ended.return_, ended.time, ended.late

    def _step(self, facts: dict[str, Array], advantage: Array, target: Array, progress: float) -> dict[str, float]:
        """One step of Adam along the gradient of mean(log pi A) + ent_coef H - vf_coef (V - target)^2 / 2."""
        from ...core_ml.learners.fused import Coefs
        from ...core_ml.maths.returns import explained_variance

        o, actor, learner = self.config, self.actor, self.learner
        critic, rows = o.advantage in WITH_CRITIC, advantage.size
        learning_rate = o.learning_rate * scheduled(o.schedule, progress)
        action = facts["action"].reshape(rows, *[-1] * actor.continuous)
        numbers = [np.ascontiguousarray(x).reshape(-1) for x in (facts["log_prob"], advantage, target, facts["value"])]
        self._records = learner.records(facts["obs"].reshape(rows, -1), action, *numbers, self._records)
        coefs = Coefs(UNCLIPPED, None, o.vf_coef if critic else 0.0, o.ent_coef)
        one_minibatch = np.arange(rows), rows
        rates = learning_rate, o.max_grad_norm
        sums, norms = learner.epoch(self._records, *one_minibatch, coefs, *rates, o.normalise_advantage, actor.scale())
        actor.check_finite(norms[-1], sums)
        metrics = metrics_of(sums / rows, explained_variance(numbers[3], numbers[2]), learning_rate, float(norms[-1]))
        unknown = {"clip_fraction"} if critic else {"clip_fraction", "loss/value", "explained_variance"}
        return {name: metric for name, metric in metrics.items() if name not in unknown} | {"rows": float(rows)}

    def _kept(self) -> dict[str, Array]:
        """What is remembered beside the network; arrays of our own, not copies."""
        episodes = self.episodes.state() if self.episodes else {}
        baseline = self.baseline.state() if self.baseline else {}
        return {f"episodes.{k}": v for k, v in episodes.items()} | {f"baseline.{k}": v for k, v in baseline.items()}

    def policy_module(self) -> Any:
        from .exported import actor_module

        return actor_module(self.actor)

    def parts(self) -> list[PartRow]:
        return self.actor.parts()

    def state_dict(self) -> dict[str, Array]:
        return self.actor.state_dict() | {name: array.copy() for name, array in self._kept().items()} | self.rewards.state()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "agent policy-gradient")
        own, state = self._kept(), self.rewards.load(state)
        self.actor.load_state_dict({name: array for name, array in state.items() if name not in own})
        for prefix, part in (("episodes.", self.episodes), ("baseline.", self.baseline)):
            if part:
                part.load({name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)})
