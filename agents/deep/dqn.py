"""Deep Q-learning (Mnih et al. 2015, "Human-level control through deep reinforcement learning").

    repeat:
        act for num_steps:  a = argmax_a Q(s, a), with probability epsilon a random one
        store each (s, a, r, s') in the replay
        for every update_every environment steps, on batch_size transitions drawn from the replay:
            y = r + gamma max_a' Q_target(s', a')        0 instead of Q_target where the episode terminated
            a step of Adam down the gradient of huber(y - Q(s, a))
        every target_update_interval gradient steps:  Q_target <- Q

Options add what came after: double, dueling, n-step returns, prioritised replay, noisy networks, quantiles, an ensemble with
random priors. `act` and `learn` are the loop; the equations are in `core_ml/maths/losses.py` (`td_target`, `huber`) and the
network with its optimiser in `core_ml/learners/torch_q.py`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from pydantic import Field

from ...envs.batch import Native, flat_size
from ...store.arrays import Array, check_arrays
from ..masks import only_legal, random_legal
from ..protocol import AgentConfig, Carry, Mode, NonFinite, Rollout, RolloutBuffer, Spaces
from ..registry import agent
from ..slots.rewards import Bonuses, Rewards
from .parts import Parts, RandomNumbers, Widths, load_into, scheduled, state_of

PARTS = 256  # minibatches per call of the learner, at most


@agent("dqn")
class DQN:
    """Q-learning with a neural network; one network shared by all agents of an environment.

    `replay=false target_update_interval=0` is the naive method. `learner` chooses how the network is computed: "fused" compiled
    kernels for full layers without dueling, noise, quantiles and ensemble (torch is then not imported), "torch" any network.
    """

    masks: ClassVar[bool] = True

    class Config(AgentConfig):
        num_steps: int = Field(16, ge=1, le=100_000, description="steps per environment between updates")
        update_every: float = Field(4, gt=0, le=1e6, description="environment steps per gradient step")
        learning_starts: int = Field(1_000, ge=0, description="environment steps before the first gradient step")
        batch_size: int = Field(64, ge=1, le=65_536, description="transitions per gradient step")
        replay: bool = Field(True, description="draw from all stored transitions; false: use the newest ones")
        buffer_size: int = Field(50_000, ge=1, le=10**8, description="transitions that the replay holds")
        target_update_interval: int = Field(
            250, ge=0, description="gradient steps between updates of the target network; 0: no target network"
        )
        double: bool = Field(False, description="the network chooses the next action, the target network values it")
        dueling: bool = Field(False, description="separate hidden layers for value and advantages")
        n_step: int = Field(1, ge=1, le=1000, description="rewards summed before bootstrapping")
        prioritised: bool = Field(False, description="draw transitions in proportion to their last error")
        priority_exponent: float = Field(0.6, gt=0, le=2, description="alpha of prioritised replay; 0 would be uniform")
        importance_exponent: float = Field(0.4, ge=0, le=1, description="beta of prioritised replay at the start; 1 at the end")
        noisy: bool = Field(False, description="explore by noise in the weights, drawn for each episode, instead of epsilon")
        noise: float = Field(0.5, gt=0, le=100, description="initial deviation of noisy weights, times sqrt(inputs)")
        ensemble_size: int = Field(
            0, ge=0, le=512, description="heads with random priors; one of them acts for an episode; 0: none"
        )
        prior_scale: float = Field(3.0, ge=0, le=1000, description="scale of the fixed random functions added to the heads")
        quantiles: int = Field(0, ge=0, le=512, description="learn so many quantiles of the return; 0: its mean")
        epsilon: float = Field(1.0, ge=0, le=1, description="probability of a random action at the start")
        epsilon_final: float = Field(0.05, ge=0, le=1, description="probability of a random action at the end of exploration")
        exploration_fraction: float = Field(
            0.2, gt=0, le=1, description="share of the run in which epsilon falls to epsilon_final"
        )
        learning_rate: float = Field(1e-3, gt=0, le=10, description="of Adam, at the start")
        schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="learning rate over the run")
        gamma: float = Field(0.99, ge=0, le=1, description="discount per step")
        max_grad_norm: float = Field(10.0, ge=0, le=1e6, description="0: no clipping")
        network: Literal["mlp", "cnn"] = Field("mlp", description="fully connected layers, or two convolutions before them")
        hidden: Widths = Field((64, 64), min_length=1, max_length=8, description="widths of the full layers")
        channels: int = Field(16, ge=1, le=512, description="of the two convolutions of a cnn")
        activation: Literal["tanh", "relu"] = Field("relu", description="nonlinearity after each hidden layer")
        learner: Literal["auto", "torch", "fused"] = Field(
            "auto", description="auto: fused kernels where they know the network"
        )
        bonus: Bonuses = Field((), description="intrinsic rewards that are added to the world's when a step is stored")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        from ...core_ml.data.transitions import Replay

        self.config, self.spaces = config, spaces
        if not isinstance(spaces.action, gymnasium.spaces.Discrete):
            raise ValueError(f"agent dqn: it cannot act in {spaces.action}, it needs a Discrete action space: take ppo")
        if config.prioritised and not config.replay:
            raise ValueError("agent dqn: prioritised needs replay: set agent.replay=true")
        if config.ensemble_size and (config.quantiles or config.noisy or config.dueling):
            raise ValueError("agent dqn: ensemble_size goes without quantiles, noisy and dueling: leave those out")
        self.actions, self._inputs, shape = int(spaces.action.n), flat_size(spaces.observation), spaces.observation.shape or ()
        if config.network == "cnn" and len(shape) not in (2, 3):
            raise ValueError(f"a cnn needs observations of 2 or 3 dimensions, these are {shape}: set agent.network=mlp")
        self.rng = RandomNumbers(seed)
        self.learner: Any  # a FusedQ or TorchQ
        self.learner, self.note = self._learner(shape)
        self.noises = int(getattr(self.learner, "noises", 0))
        self.dtype = spaces.observation.dtype if spaces.observation.dtype in (np.uint8, np.float32) else np.dtype(np.float32)
        priority = config.priority_exponent if config.prioritised else 0.0
        masked = self.actions if spaces.masked else 0
        self.replay = Replay(config.buffer_size, self._inputs, self.dtype, config.n_step, priority, masked)
        self.greedy = config.noisy or config.ensemble_size > 0  # these explore without epsilon
        self.epsilon = 0.0 if self.greedy else config.epsilon
        self.env_steps = self.gradient_steps = 0
        self.rewards = Rewards(config.bonus, spaces, config.gamma, seed)

    def _learner(self, shape: tuple[int, ...]) -> tuple[Any, str]:
        """A FusedQ or TorchQ, and a line for people about it. Raises ValueError for what is not possible."""
        from ...core_ml.learners.fused import FusedQ, MLPSpec

        o = self.config
        torch_only = {"a cnn": o.network == "cnn", "dueling": o.dueling, "noisy": o.noisy, "quantiles": o.quantiles > 0}
        torch_only["an ensemble"] = o.ensemble_size > 0
        spec = MLPSpec(self._inputs, o.hidden, o.activation, sizes=(self.actions,), value=False)
        misfit = next((f"{name} is torch's" for name, wanted in torch_only.items() if wanted), None) or spec.fits()
        if o.learner == "fused" and misfit:
            raise ValueError(f"agent dqn: learner=fused cannot do this network, {misfit}: take learner=torch or auto")
        if o.learner != "torch" and not misfit:
            fused = FusedQ(spec, o.target_update_interval > 0)
            fused.initialise(self.rng.generator)
            wait = "; they compile now, once on this machine, which takes 10 to 20 seconds" if fused.compiles else ""
            return fused, f"learner: fused kernels{wait}"
        from ...core_ml.learners.torch_q import TorchQ
        from ...core_ml.nets.q_network import q_network

        layers = shape, self.actions, o.network, o.hidden, o.channels, o.activation
        extensions = o.dueling, o.noisy, o.quantiles, o.ensemble_size, o.prior_scale
        network = TorchQ(q_network(*layers, *extensions), o.target_update_interval > 0)
        network.initialise(self.rng.generator, o.noise)
        return network, "learner: torch" + (f" ({misfit})" if misfit else "")

    @property
    def num_steps(self) -> int:
        return int(self.config.num_steps)

    def initial(self, n: int) -> Carry:
        """Noise or head of each agent, the same for an episode (deep exploration); `act` draws them at its first step."""
        if not self.greedy:
            return None
        a = self.spaces.num_agents
        drawn = np.zeros((n, a), np.int64) if self.config.ensemble_size else np.zeros((n, a, self.noises), np.float32)
        return {"drawn": drawn, "fresh": np.ones(n, np.bool_)}

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        lead, rows = obs.shape[:2], self._rows(obs)
        if mode == "greedy":
            return only_legal(self.learner.q(rows), mask).argmax(1).reshape(lead), carry, {}
        if carry is not None:
            drawn, fresh = carry["drawn"].copy(), carry["fresh"]
            shape = int(fresh.sum()), *drawn.shape[1:]
            heads = self.config.ensemble_size
            rng = self.rng.generator
            drawn[fresh] = rng.integers(heads, size=shape) if heads else rng.standard_normal(shape, np.float32)
            noise, head = (None, drawn.reshape(-1)) if heads else (drawn.reshape(len(rows), -1), None)
            carry = {"drawn": drawn, "fresh": np.zeros_like(fresh)}
            return only_legal(self.learner.q(rows, noise, head), mask).argmax(1).reshape(lead), carry, {}
        forced = self._forced(1, len(rows), mask)[0]
        best = only_legal(self.learner.q(rows), mask).argmax(1)
        return np.where(forced < 0, best, forced).reshape(lead), carry, {}

    def can_collect_natively(self, agents: int) -> bool:
        return bool(self.learner.compiled and self.learner.can_collect_natively(agents))

    def collect_natively(self, world: Native, buffer: RolloutBuffer, carry: Carry) -> tuple[dict[str, Array], float, Carry]:
        """As `act`, and the world's steps with it, for all of the rollout `buffer`; see `protocol.CollectsNatively`."""
        steps, n, a = buffer.reward.shape
        return {}, self.learner.collect_natively(world, buffer, self._forced(steps, n * a)), carry

    def _forced(self, steps: int, rows: int, mask: Array | None = None) -> Array:
        """Epsilon-greedy choices, int64 (steps, rows): a random action with probability epsilon, else -1 for the best."""
        chance, which = np.moveaxis(self.rng.generator.random((steps, rows, 2)), 2, 0)
        if mask is None:
            action = (which * self.actions).astype(np.int64)
        else:
            action = random_legal(mask.reshape(steps, rows, -1), which)
        return np.where(chance < self.epsilon, action, -1)

    def _rows(self, obs: Array) -> Array:
        """(..., *observation) -> (B, D) of the dtype that is stored."""
        return obs.reshape(-1, self._inputs).astype(self.dtype, copy=False)

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        o, replay = self.config, self.replay
        t, n, _ = batch.reward.shape
        batch, paid = self.rewards.add(batch)
        self._store(batch)
        before, self.env_steps = self.env_steps, self.env_steps + t * n
        if not self.greedy:
            self.epsilon = o.epsilon + (o.epsilon_final - o.epsilon) * min(progress / o.exploration_fraction, 1.0)
        learning_rate = o.learning_rate * scheduled(o.schedule, progress)
        metrics = {"epsilon": self.epsilon, "learning_rate": learning_rate, "replay": float(min(replay.head, o.buffer_size))}
        metrics |= paid
        if self.env_steps <= o.learning_starts or not replay.latest:
            return metrics

        # One gradient step for each `update_every` environment steps; the remainder is added to the next rollout.
        total = math.floor(self.env_steps / o.update_every) - math.floor(max(before, o.learning_starts) / o.update_every)
        drawn = None if o.replay or not total else replay.newest(total, o.batch_size, o.gamma)
        beta = o.importance_exponent + (1.0 - o.importance_exponent) * progress
        done, means, norms = 0, np.zeros(3), 0.0
        while done < total:
            parts = 1 if o.prioritised else min(total - done, PARTS)
            if o.target_update_interval:
                parts = min(parts, o.target_update_interval - self.gradient_steps % o.target_update_interval)
            if drawn is not None:
                sample = drawn.parts(done, done + parts)
            elif o.prioritised:
                sample = replay.prioritised(self.rng.generator, o.batch_size, o.gamma, beta)
            else:
                sample = replay.uniform(self.rng.generator, parts, o.batch_size, o.gamma)
            # y = R + gamma^n max_a Q'(s', a); a step of Adam down the gradient of huber(y - Q(s, a))
            found = self.learner.learn(replay, sample, o.double, learning_rate, o.max_grad_norm, self._seed())
            if not math.isfinite(found.norms[-1]):
                raise NonFinite(
                    f"gradient of {self.learner.parameters.bad_gradient()} is not finite: lower agent.learning_rate"
                )
            if o.prioritised:
                replay.update(sample, found.error)
            self.gradient_steps += parts
            if o.target_update_interval and self.gradient_steps % o.target_update_interval == 0:
                self.learner.sync()
            done, means, norms = done + parts, means + found.means * parts, norms + float(found.norms.sum())
        if not total:
            return metrics
        loss, value, error = (means / total).tolist()
        metrics |= {"loss": loss, "q": value, "td_error": error, "grad_norm": norms / total}
        return metrics | {"gradient_steps": float(self.gradient_steps)}

    def _seed(self) -> int:
        """A seed for the noise of one call of the learner."""
        return self.rng.draw() if self.config.noisy else 0

    def _store(self, batch: Rollout) -> None:
        """All steps of a rollout into the replay, as N A streams."""
        from ...core_ml.maths.returns import next_step

        t, n, a = batch.reward.shape
        next_obs = next_step(batch.obs, batch.last_obs, batch.truncated, batch.final_obs)
        terminated, truncated = (np.repeat(flag, a, axis=1) for flag in (batch.terminated, batch.truncated))
        action, reward = batch.action.reshape(t, n * a), batch.reward.reshape(t, n * a)
        next_mask = None
        if batch.mask is not None and batch.last_mask is not None and batch.final_mask is not None:
            next_mask = next_step(batch.mask, batch.last_mask, batch.truncated, batch.final_mask)
        self.replay.add(self._rows(batch.obs), action, reward, self._rows(next_obs), terminated, truncated, next_mask)

    def policy_module(self) -> Any:
        from ._exported import q_module

        return q_module(self)

    def _parts(self) -> Parts:
        return [("", self.learner.parameters), ("replay.", self.replay), ("", self.rng)]

    def state_dict(self) -> dict[str, Array]:
        counters = np.array([self.env_steps, self.gradient_steps], np.int64)
        state = {"counters": counters, "epsilon": np.array(self.epsilon), "target": self.learner.target.copy()}
        return state | state_of(self._parts()) | self.rewards.state()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "agent dqn")
        state = self.rewards.load(state)
        load_into(self._parts(), state)
        self.learner.target[:] = state["target"]
        self.env_steps, self.gradient_steps = (int(x) for x in state["counters"])
        self.epsilon = float(state["epsilon"])
