"""Dreamer (Hafner et al. 2020, 2021, 2025): learn a world model of what happened, and to act in what it imagines."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gymnasium
import numpy as np
import pydantic
from pydantic import Field

from ...envs.names import explain
from ...store.arrays import Array, check_arrays
from ...store.random_state import generator_state, set_generator_state
from ..protocol import AgentConfig, Carry, Mode, NonFinite, PartRow, Rollout, Spaces
from ..registry import agent
from ..slots.spec import ModelPart, ModelSlot, label, observation_of, resolve
from .world_model_policy import initial_carry, next_carry, observe

if TYPE_CHECKING:
    from ...core_ml.planners.cem import CEMPlanner
    from ...core_ml.planners.cma_controller import CmaController


@agent("dreamer")
class Dreamer:
    """World model, which fills the slot `model`, and an actor-critic (`core_ml/models/imagined_actor_critic.py`) that
    learns in imagination alone.

    Work per `learn`: `updates` times, a step of the model on sequences of what really happened, and a step of the actor-critic
    on what the model imagines from the states of these sequences. One model and one actor-critic for all agents of an
    environment; to each of them the others are part of the world. Discrete actions.
    """

    in_leaderboard: ClassVar[bool] = False  # slow

    class Config(AgentConfig):
        num_steps: int = Field(16, ge=1, le=100_000, description="steps of each environment between updates")
        updates: int = Field(16, ge=1, le=100_000, description="of model and actor-critic after each rollout")
        learning_starts: int = Field(1_000, ge=0, description="environment steps before the first update")
        buffer_size: int = Field(100_000, ge=1, le=10**8, description="steps that are stored")
        batch_size: int = Field(32, ge=1, le=65_536, description="sequences per update")
        length: int = Field(16, ge=2, le=10_000, description="steps of a sequence")
        imagined_batch_size: int = Field(
            0, ge=0, le=10**6, description="that many at once, from states of the sequences; 0: one from each"
        )
        horizon: int = Field(15, ge=1, le=10_000, description="steps of an imagined trajectory")
        gamma: float = Field(0.99, ge=0, le=1, description="discount of a step")
        return_lambda: float = Field(0.95, ge=0, le=1, description="of lambda-returns")
        ent_coef: float = Field(3e-3, ge=0, le=10, description="weight of the entropy bonus")
        ent_coef_final: float | None = Field(None, ge=0, le=10, description="entropy weight at the end, reached linearly")
        learning_rate: float = Field(1e-3, gt=0, le=10, description="of the actor-critic; the model has its own")
        learning_rate_final: float = Field(
            1.0, ge=0, le=1, description="share of both learning rates at the end, reached linearly"
        )
        model: ModelSlot = Field(
            ModelPart(name="rssm", untrained=False), description="component that says what follows on an action"
        )
        actor_critic: dict[str, Any] = Field(
            {}, description="other options of the actor-critic, see core_ml/models/imagined_actor_critic.py"
        )
        controller: Literal["actor-critic", "planner", "cma"] = Field(
            "actor-critic",
            description="what acts: the actor-critic; planner: CEM plans in the model at each step, with the critic's value at "
            "the end of a plan; cma: a linear policy that CMA-ES evolves in imagination, instead of the actor-critic",
        )
        planner: dict[str, Any] = Field({}, description="options of controller planner, see core_ml/planners/cem.py")
        cma: dict[str, Any] = Field({}, description="options of controller cma, see core_ml/planners/cma_controller.py")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        from ...core_ml.data.sequences import SequenceReplay
        from ...core_ml.models.imagined_actor_critic import ImaginedActorCritic

        o, self.config, self.spaces = config, config, spaces
        space = spaces.observation
        if not isinstance(spaces.action, gymnasium.spaces.Discrete):
            raise ValueError(f"agent dreamer: it cannot act in {spaces.action}, it needs a Discrete action space: take ppo")
        if not isinstance(space, gymnasium.spaces.Box):
            raise ValueError(f"agent dreamer: it cannot see {space}, it needs a Box: flatten it first")
        self.actions = int(spaces.action.n)
        self.rng = np.random.Generator(np.random.PCG64(seed))
        seen = observation_of(space, "agent dreamer")
        self.dtype: Any = np.float32 if seen.kind == "vector" else np.uint8
        entry, chosen = resolve("model", o.model)
        self.model = entry.cls(chosen, seen, self.actions, self._draw())
        shared = {name: getattr(o, name) for name in ("gamma", "return_lambda", "learning_rate")}
        options = _options("actor_critic", ImaginedActorCritic.Config, {**shared, **o.actor_critic})
        self.actor_critic = ImaginedActorCritic(options, self.model.size, self.actions, self._draw())
        self.replay = SequenceReplay(o.buffer_size, space.shape, self.dtype)
        self.env_steps, self.seed = 0, seed
        self.planner: CEMPlanner | None = None
        self.cma: CmaController | None = None
        self._make_controller()

    def _make_controller(self) -> None:
        """The planner or the CMA-ES policy that `controller` names. Raises ValueError for options of one that is not chosen."""
        from ...core_ml.planners.cem import CEMPlanner
        from ...core_ml.planners.cma_controller import CmaController

        o = self.config
        for name in ("planner", "cma"):
            if getattr(o, name) and o.controller != name:
                raise ValueError(f"agent dreamer: options {name} with controller {o.controller}: set controller={name}")
        if o.controller == "planner":
            given = {"gamma": o.gamma, "horizon": min(o.horizon, 12), **o.planner}
            self.planner = CEMPlanner(_options("planner", CEMPlanner.Config, given), self.actions)
        elif o.controller == "cma":
            given = {"gamma": o.gamma, "horizon": o.horizon, **o.cma}
            self.cma = CmaController(_options("cma", CmaController.Config, given), self.model.size, self.actions)

    @property
    def num_steps(self) -> int:
        return int(self.config.num_steps)

    @property
    def world_model(self) -> Any:
        """The `WorldModel` in slot `model`; see `protocol.ModelBased`."""
        return self.model

    def initial(self, n: int) -> Carry:
        """The model's state of n environments, the last action, and whether an episode begins."""
        a = self.spaces.num_agents
        carry = initial_carry(self.model, n * a)
        if self.planner:
            carry["plan"] = np.full((n * a, self.planner.config.horizon, self.actions), 1 / self.actions, np.float32)
        return {name: part.reshape(n, a, *part.shape[1:]) for name, part in carry.items()}

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        import torch

        from ...core_ml.distributions import Categorical
        from ...core_ml.planners.cem import ActionPlan

        assert carry is not None
        lead = obs.shape[:2]
        flat = {name: part.reshape(-1, *part.shape[2:]) for name, part in carry.items()}
        with torch.inference_mode():
            features, state = observe(self.model, self.actions, obs.reshape(-1, 1, *obs.shape[2:]), flat)
            plan: dict[str, Array] = {}
            if self.planner:
                # Greedy plans draw from a stream of their own: an evaluation changes nothing in training.
                generator = torch.Generator().manual_seed(self.seed if mode == "greedy" else self._draw())
                before = ActionPlan.of(torch.from_numpy(flat["plan"]))
                found = self.planner.plan(self.model, state, generator, self.actor_critic.value, before)
                plan, policy = {"plan": found.p.numpy().copy()}, Categorical(found.p[:, 0].clamp_min(1e-12).log())
            elif self.cma:
                policy = Categorical.of(self.cma.mean_scores(features))
            else:
                policy = self.actor_critic.policy(features)
            if mode == "greedy":
                action = policy.mode()
            else:
                action = policy.quantile(torch.from_numpy(self.rng.random((len(features), 1), np.float32)))
        after = next_carry(state, action.numpy()) | plan
        return action.numpy().reshape(lead), {name: part.reshape(*lead, *part.shape[1:]) for name, part in after.items()}, {}

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        import torch

        o, (t, n, _) = self.config, batch.reward.shape
        self._store(batch)
        self.env_steps += t * n
        known = {"replay": float(self.replay.steps * self.replay.streams)}
        if self.env_steps < o.learning_starts or self.replay.steps < o.length:
            return known
        rate, sums = 1.0 - (1.0 - o.learning_rate_final) * progress, dict[str, float]()
        ent_coef = o.ent_coef + ((o.ent_coef if o.ent_coef_final is None else o.ent_coef_final) - o.ent_coef) * progress
        for _ in range(o.updates):
            sequences = self.replay.draw(self.rng, o.batch_size, o.length)
            generator = torch.Generator().manual_seed(self._draw())
            if o.model.untrained:
                metrics, states = {}, self.model.posterior(sequences, generator)
            else:
                metrics, states = self.model.learn(sequences, generator, rate)
            start = {name: part.flatten(0, 1) for name, part in states.items()}  # states that really occurred
            if 0 < o.imagined_batch_size < sequences.reward.size:
                some = torch.randint(sequences.reward.size, (o.imagined_batch_size,), generator=generator)
                start = {name: part[some] for name, part in start.items()}
            if self.cma:
                metrics |= self.cma.update(self.model, start, generator)
            else:
                policy = functools.partial(self.actor_critic.sample, generator=generator)
                imagined = self.model.imagine(start, policy, o.horizon, generator)
                metrics |= self.actor_critic.update(imagined, rate, ent_coef)
            self._check_finite(metrics)
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + value / o.updates
        return sums | known

    def parts(self) -> list[PartRow]:
        o, memory = self.actor_critic.config, self.model.state_dict()
        learned = 0 if self.config.model.untrained else sum(x.size for name, x in memory.items() if ".model." in name)
        shapes = ", ".join(f"{name} {tuple(part.shape[1:])}" for name, part in self.model.initial(1).items())
        trunk, own = " x ".join(map(str, o.hidden)), self.actor_critic.optimiser.flat.numel()
        model = PartRow("model", label(self.config.model), f"features ({self.model.size},) of {shapes}", learned)
        gives = f"one of {self.actions} actions"
        if self.cma:
            return [model, PartRow("controller", "linear policy by CMA-ES in imagination", gives, len(self.cma.es.mean))]
        rows = [model, PartRow("actor_critic", f"actor and critic of {trunk}", gives, own)]
        if self.planner:
            p = self.planner.config
            rows.append(PartRow("controller", f"CEM plans of {p.horizon} steps, {p.population} at a time", gives, 0))
        return rows

    def _store(self, batch: Rollout) -> None:
        """All agents of all environments as streams."""
        t, n, a = batch.reward.shape
        obs = batch.obs.reshape(t, n * a, *batch.obs.shape[3:]).astype(self.dtype, copy=False)
        ended = (np.repeat(flag, a, axis=1) for flag in (batch.terminated, batch.truncated))
        self.replay.add(obs, batch.action.reshape(t, n * a), batch.reward.reshape(t, n * a), *ended)

    def _check_finite(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if not math.isfinite(value):
                way = "agent.learning_rate" if "actor_critic" in name else "agent.model.learning_rate"
                raise NonFinite(f"{name} of the dreamer is {value}: lower {way}, or look at the scale of rewards")

    def _draw(self) -> int:
        """A seed for one piece of work: all randomness comes from the one generator."""
        return int(self.rng.integers(2**62))

    def state_dict(self) -> dict[str, Array]:
        parts = {
            "model": self.model.state_dict(), "behaviour": self.actor_critic.state_dict(), "replay": self.replay.state(),
        }  # fmt: skip
        if self.cma:
            parts["cma"] = self.cma.state_dict()
        state = {f"{part}.{name}": array.copy() for part, found in parts.items() for name, array in found.items()}
        return state | {"env_steps": np.array(self.env_steps, np.int64), "rng": generator_state(self.rng)}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "agent dreamer")
        loads = {
            "model": self.model.load_state_dict, "behaviour": self.actor_critic.load_state_dict, "replay": self.replay.load,
        }  # fmt: skip
        if self.cma:
            loads["cma"] = self.cma.load_state_dict
        for part, load in loads.items():
            load({name.removeprefix(f"{part}."): array for name, array in state.items() if name.startswith(f"{part}.")})
        self.env_steps = int(state["env_steps"])
        set_generator_state(self.rng, state["rng"])


def _options(what: str, config: Any, options: dict[str, Any]) -> Any:
    """The options of a part. Raises ValueError with one line for the first fault."""
    try:
        return config(**options)
    except pydantic.ValidationError as error:
        raise ValueError(explain(error, f"agent dreamer, {what}", list(config.model_fields))) from None
