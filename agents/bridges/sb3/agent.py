"""The algorithms of stable-baselines3 and sb3-contrib (Raffin et al. 2021, JMLR 22:268) as agents: `sb3-ppo`, `sb3-sac`, ...

Nothing of them is written again here. The library's own `collect_rollouts` steps our environments, which it sees as its VecEnv,
and its own `train` learns, in the order of its own `learn`: the same seed on the same environments gives the parameters that
`model.learn` gives. What is added is what a run here needs: its random state is kept apart from everybody else's, and what the
future depends on goes into the checkpoint as plain arrays, so that a run that was killed goes on exactly.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple

import gymnasium
import numpy as np
from pydantic import Field, create_model

from ....configs.suggest import suggest
from ....envs.batch import BatchEnv
from ....store.arrays import Array, check_arrays
from ...protocol import AgentConfig, Carry, Mode, NonFinite, Rollout, Spaces
from ...registry import agent
from .options import checked
from .state import Generators, contained, experience_arrays, load_experience_arrays, load_model_arrays, model_arrays
from .vec_env import vec_env


class Algorithm(NamedTuple):
    """One algorithm of the library, and what is said of it here."""

    package: str
    cls: str
    about: str  # the first line of its help
    actions: Literal["any", "discrete", "continuous"]
    num_steps: int | None = None  # per environment between two updates; None: off-policy, it learns while it steps
    policy: str = "MlpPolicy"
    noise: float | None = None  # sd of exploration noise; None: it takes none


SB3, CONTRIB = "stable_baselines3", "sb3_contrib"
TABLE = {
    "sb3-ppo": Algorithm(SB3, "PPO", "Proximal policy optimisation (Schulman et al. 2017)", "any", 128),
    "sb3-a2c": Algorithm(SB3, "A2C", "Advantage actor-critic (Mnih et al. 2016)", "any", 5),
    "sb3-dqn": Algorithm(SB3, "DQN", "Deep Q-network (Mnih et al. 2015)", "discrete"),
    "sb3-sac": Algorithm(SB3, "SAC", "Soft actor-critic (Haarnoja et al. 2018)", "continuous", noise=0.0),
    "sb3-td3": Algorithm(SB3, "TD3", "Twin delayed DDPG (Fujimoto et al. 2018)", "continuous", noise=0.1),
    "sb3-ddpg": Algorithm(SB3, "DDPG", "Deep deterministic policy gradient (Lillicrap et al. 2016)", "continuous", noise=0.1),
    "sb3-qrdqn": Algorithm(CONTRIB, "QRDQN", "Quantile regression DQN (Dabney et al. 2018)", "discrete"),
    "sb3-recurrent-ppo": Algorithm(CONTRIB, "RecurrentPPO", "PPO with an LSTM, which remembers", "any", 128, "MlpLstmPolicy"),
    "sb3-trpo": Algorithm(CONTRIB, "TRPO", "Trust region policy optimisation (Schulman et al. 2015)", "any", 128),
    "sb3-tqc": Algorithm(CONTRIB, "TQC", "Truncated quantile critics (Kuznetsov et al. 2020)", "continuous", noise=0.0),
    "sb3-crossq": Algorithm(
        CONTRIB, "CrossQ", "SAC without targets, batch-normed (Bhatt et al. 2024)", "continuous", noise=0.0
    ),
}
OFF_POLICY_STEPS = 64  # per environment between two rows of metrics
METRICS = {  # what the library logs, by the names that the same thing has in our own agents
    "policy_gradient_loss": "loss/policy", "policy_loss": "loss/policy", "value_loss": "loss/value", "approx_kl": "kl",
    "kl_divergence_loss": "kl", "actor_loss": "loss/actor", "critic_loss": "loss/critic", "ent_coef_loss": "loss/ent_coef",
}  # fmt: skip


class StableBaselines:
    """What the agents of `TABLE` have in common: all of it but the names.

    They work on the processor; on one thread, which is fastest for small networks, a CnnPolicy on as many as the run has.
    """

    name: ClassVar[str]
    algorithm: ClassVar[Algorithm]
    Config: ClassVar[type[AgentConfig]]

    def __init__(self, config: Any, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.spaces = config, spaces
        self._seed = seed % 2**32  # numpy's old generator takes no more
        self._threads = threads if config.policy.startswith("Cnn") else 1
        self._library = self._find()
        self._check_actions()
        self._options = self._checked()
        self._remarks: list[str] = []
        self._callback: Any = None
        self._generators: Generators  # as the model left them
        self.model: Any = self._build(None, 2)  # its policy is all that acting needs; `attach` makes the one that learns

    def _find(self) -> Any:
        """The library's class."""
        try:
            return getattr(importlib.import_module(self.algorithm.package), self.algorithm.cls)
        except ImportError:
            way = "sb3-contrib is not installed: pip install 'gumdrop[sb3]'"
            raise ValueError(f"agent {self.name}: {way}") from None

    def _check_actions(self) -> None:
        space, wanted = self.spaces.action, self.algorithm.actions
        kind = "discrete" if isinstance(space, gymnasium.spaces.Discrete) else "continuous"
        if not isinstance(space, (gymnasium.spaces.Discrete, gymnasium.spaces.Box)):
            raise ValueError(f"agent {self.name} cannot act in {space}: it needs a Discrete or a Box action space")
        if wanted not in ("any", kind):
            others = "sb3-dqn or sb3-ppo" if kind == "discrete" else "sb3-sac, sb3-td3 or sb3-ppo"
            raise ValueError(f"agent {self.name} chooses {wanted} actions, these are {space}: take {others}")

    def _checked(self) -> dict[str, Any]:
        """What the library's constructor gets beside policy and environment. Raises ValueError where it would refuse it."""
        o, on_policy = self.config, bool(self.algorithm.num_steps)
        policies = list(self._library.policy_aliases)
        if o.policy not in policies:
            raise ValueError(f"agent {self.name}: no policy {o.policy!r:.40}{suggest(o.policy, policies)}")
        options = checked(self.name, o.options, self._library, on_policy)
        if on_policy:
            return options | {"n_steps": o.num_steps}
        every = options.get("train_freq", inspect.signature(self._library).parameters["train_freq"].default)
        if o.num_steps % every:
            raise ValueError(f"agent {self.name}: num_steps={o.num_steps} is no multiple of train_freq={every}: change one")
        return options

    def _build(self, env: BatchEnv | None, rows: int) -> Any:
        """A fresh model over `rows` rows of `env`; its parameters are the same for any number of them."""
        options = copy.deepcopy(self._options)  # they write into policy_kwargs
        if env is None and not self.algorithm.num_steps:
            options["buffer_size"] = rows  # nothing is ever stored in it
        noise, shape = getattr(self.config, "action_noise", 0.0), self.spaces.action.shape
        if noise:
            from stable_baselines3.common.noise import NormalActionNoise

            options["action_noise"] = NormalActionNoise(np.zeros(shape or ()), np.full(shape or (), noise))
        with contained(self._threads), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            environments = vec_env(env, self.spaces, rows)
            try:
                model = self._library(self.config.policy, environments, seed=self._seed, device="cpu", **options)
            except Exception as error:  # whatever it raises is its reason
                fault = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(f"agent {self.name}: stable-baselines3 refuses: {fault:.300}") from None
            self._generators = Generators.now()
        self._remarks = [" ".join(str(warning.message).split()) for warning in caught] if env else []
        return model

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """The library draws from the global generators: it gets them as it left them, and nobody else notices."""
        with contained(self._threads):
            self._generators.use()
            yield
            self._generators = Generators.now()

    @property
    def note(self) -> str:
        """For people, when a run begins: whose code learns, and what it warned of."""
        package = importlib.import_module(self.algorithm.package)
        whose = f"learner: {self.algorithm.cls} of {self.algorithm.package.replace('_', '-')} {package.__version__}"
        return ". ".join([whose, *self._remarks])

    @property
    def num_steps(self) -> int:
        return int(self.config.num_steps)

    def initial(self, n: int) -> Carry:
        """Zeros for an LSTM, float32 (N, A, layers, width)."""
        lstm = getattr(self.model.policy, "lstm_actor", None)
        if lstm is None:
            return None
        shape = (n, self.spaces.num_agents, lstm.num_layers, lstm.hidden_size)
        return {"hidden": np.zeros(shape, np.float32), "cell": np.zeros(shape, np.float32)}

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        lead, rows = obs.shape[:2], obs.reshape(-1, *obs.shape[2:])
        state: Any = None
        if carry is not None:  # (N, A, layers, width) here, (layers, rows, width) there
            state = tuple(held.reshape(len(rows), *held.shape[2:]).swapaxes(0, 1) for held in (carry["hidden"], carry["cell"]))
        begun = np.zeros(len(rows), np.bool_)  # rows that begin an episode hold zeros already
        with self._at_work():
            action, state = self.model.predict(rows, state, begun, deterministic=mode == "greedy")
        if carry is not None:
            shape = carry["hidden"].shape
            carry = {name: held.swapaxes(0, 1).reshape(shape) for name, held in zip(("hidden", "cell"), state, strict=True)}
        return action.reshape(*lead, *action.shape[1:]), carry, {}

    def attach(self, env: BatchEnv, budget: float) -> None:
        """The model that learns, over the rows of `env`, with the state that this one has."""
        state = self.state_dict()
        self.model = self._build(env, env.num_envs * env.num_agents)
        with self._at_work():
            _, self._callback = self.model._setup_learn(budget * env.num_agents)
            self._callback.on_training_start({}, {})
        self.load_state_dict(state)

    def drive(self, steps: int) -> float:
        """The first half of the library's loop if it is on-policy; off-policy all of it, as often as it goes into `steps`."""
        model, learning = self.model, 0.0
        with self._at_work(), self._finite():
            if self.algorithm.num_steps:
                model.collect_rollouts(model.env, self._callback, model.rollout_buffer, n_rollout_steps=steps)
                return 0.0
            for _ in range(steps // model.train_freq.frequency):
                found = model.collect_rollouts(
                    model.env, train_freq=model.train_freq, action_noise=model.action_noise, callback=self._callback,
                    learning_starts=model.learning_starts, replay_buffer=model.replay_buffer, log_interval=None,
                )  # fmt: skip
                began = time.perf_counter()
                if model.num_timesteps > 0 and model.num_timesteps > model.learning_starts:
                    times = model.gradient_steps if model.gradient_steps >= 0 else found.episode_timesteps
                    if times > 0:
                        model.train(batch_size=model.batch_size, gradient_steps=times)
                learning += time.perf_counter() - began
        return learning

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        """The second half, if it is on-policy; what has been logged. `batch` is empty: the model keeps its own."""
        model = self.model
        if self.algorithm.num_steps:
            with self._at_work(), self._finite():
                model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
                model.train()
        logged = {name.split("/")[-1]: float(value) for name, value in model.logger.name_to_value.items()}
        model.logger.name_to_value.clear()
        logged.pop("n_updates", None)
        if math.isnan(logged.get("explained_variance", 0.0)):  # they say so where all returns are equal
            del logged["explained_variance"]
        if "entropy_loss" in logged:
            logged["entropy"] = -logged.pop("entropy_loss")
        return {METRICS.get(name, name): value for name, value in logged.items()}

    @contextmanager
    def _finite(self) -> Iterator[None]:
        """Raise NonFinite where the library stumbles over parameters that are not, or leaves such behind."""
        try:
            yield
        finally:
            self._check_parameters()

    def _check_parameters(self) -> None:
        import torch

        for name, parameter in self.model.policy.named_parameters():
            if not torch.isfinite(parameter).all():
                raise NonFinite(f"{name} is not finite: lower agent.options.learning_rate")

    def state_dict(self) -> dict[str, Array]:
        """As `model.save` keeps it, and the random state; the same for any number of environments."""
        return model_arrays(self.model) | self._generators.arrays()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), f"agent {self.name}")
        load_model_arrays(self.model, state)
        self._generators = Generators.of(state)

    def get_experience(self) -> dict[str, Array]:
        return experience_arrays(self.model)

    def set_experience(self, state: dict[str, Array]) -> None:
        load_experience_arrays(self.model, state, f"agent {self.name}")


def _register(name: str, row: Algorithm) -> None:
    steps = "steps per environment between " + (
        "updates" if row.num_steps else "rows of metrics; it learns every options.train_freq"
    )
    fields: dict[str, Any] = {
        "num_steps": (int, Field(row.num_steps or OFF_POLICY_STEPS, ge=1, le=100_000, description=steps)),
        "policy": (str, Field(row.policy, description="the network, by the library's name")),
        "options": (dict[str, Any], Field({}, description=f"arguments of {row.cls}, as the library documents them")),
    }
    if row.noise is not None:
        about = "sd of Gaussian noise on actions while training; they reach from -1 to 1"
        fields["action_noise"] = (float, Field(row.noise, ge=0, le=10, description=about))
    config = create_model("Config", __base__=AgentConfig, __module__=__name__, **fields)
    help = f"{row.about}, by {row.package.replace('_', '-')}."
    agent(name)(
        type(row.cls, (StableBaselines,), {"algorithm": row, "Config": config, "__doc__": help, "__module__": __name__})
    )


for _name, _row in TABLE.items():
    _register(_name, _row)
