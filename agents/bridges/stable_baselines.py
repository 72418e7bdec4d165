"""The algorithms of stable-baselines3 and sb3-contrib (Raffin et al. 2021, JMLR 22) as agents: `sb3-ppo`, `sb3-sac`, ...

Nothing of them is written again here. The library's own `collect_rollouts` steps our copies, which it sees as its VecEnv, and
its own `train` learns, in the order of its own `learn`: the same seed on the same copies gives the same parameters as
`model.learn` does. What is added is what a run here needs: its random state is kept apart from everybody else's, and
everything that the future depends on goes into the checkpoint as plain arrays, so that a run that was killed goes on exactly.
Models are never pickled, nor read from a pickle.
"""

from __future__ import annotations

import importlib
import inspect
import math
import random
import time
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin

import gymnasium
import numpy as np
from pydantic import Field, create_model

from ...envs.core import BatchEnv, finite_bounds
from ...envs.registry import suggest
from ..core import (
    AgentConfig,
    Array,
    Carry,
    Mode,
    NonFinite,
    Rollout,
    Spaces,
    agent,
    check_arrays,
    generator_state,
    set_generator_state,
)


class Algorithm(NamedTuple):
    """One algorithm of the library and what is said of it here."""

    package: str
    cls: str
    about: str  # the class's first line
    actions: Literal["any", "discrete", "continuous"]
    num_steps: int | None  # per copy between updates of an on-policy algorithm; None: off-policy, which learns between steps
    policy: str = "MlpPolicy"
    noise: float | None = None  # sd of the exploration noise, for algorithms that take one


SB3, CONTRIB = "stable_baselines3", "sb3_contrib"
TABLE = {
    "sb3-ppo": Algorithm(SB3, "PPO", "Proximal policy optimisation (Schulman et al. 2017)", "any", 128),
    "sb3-a2c": Algorithm(SB3, "A2C", "Advantage actor-critic (Mnih et al. 2016)", "any", 5),
    "sb3-dqn": Algorithm(SB3, "DQN", "Deep Q-network (Mnih et al. 2015)", "discrete", None),
    "sb3-sac": Algorithm(SB3, "SAC", "Soft actor-critic (Haarnoja et al. 2018)", "continuous", None, noise=0.0),
    "sb3-td3": Algorithm(SB3, "TD3", "Twin delayed DDPG (Fujimoto et al. 2018)", "continuous", None, noise=0.1),
    "sb3-ddpg": Algorithm(SB3, "DDPG", "Deep deterministic policy gradient (Lillicrap et al. 2016)", "continuous", None, noise=0.1),
    "sb3-qrdqn": Algorithm(CONTRIB, "QRDQN", "Quantile regression DQN (Dabney et al. 2018)", "discrete", None),
    "sb3-recurrent-ppo": Algorithm(CONTRIB, "RecurrentPPO", "PPO with an LSTM, which remembers", "any", 128, "MlpLstmPolicy"),
    "sb3-trpo": Algorithm(CONTRIB, "TRPO", "Trust region policy optimisation (Schulman et al. 2015)", "any", 128),
    "sb3-tqc": Algorithm(CONTRIB, "TQC", "Truncated quantile critics (Kuznetsov et al. 2020)", "continuous", None, noise=0.0),
    "sb3-crossq": Algorithm(CONTRIB, "CrossQ", "SAC with batch norm, no target (Bhatt et al. 2024)", "continuous", None, noise=0.0),
}  # fmt: skip
OFF_POLICY_STEPS = 64  # per copy between two rows of metrics
OURS = {  # arguments of their constructors that are not for `options`
    "policy": "agent.policy", "env": "env.id", "seed": "seed", "n_steps": "agent.num_steps",
    "action_noise": "agent.action_noise", "device": "device", "verbose": "", "tensorboard_log": "track",
    "_init_setup_model": "", "rollout_buffer_class": "", "replay_buffer_class": "", "stats_window_size": "",
}  # fmt: skip
LEAST = {"learning_starts": 0, "gradient_steps": -1, "sde_sample_freq": -1, "top_quantiles_to_drop_per_net": 0}  # others: 1
ACTIVATIONS = {"tanh": "Tanh", "relu": "ReLU", "elu": "ELU", "gelu": "GELU", "silu": "SiLU", "leaky_relu": "LeakyReLU"}
LINEAR = "lin_"  # before a number, as in rl-baselines3-zoo: it falls to 0 over the run
COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls")
REALS = ("_current_progress_remaining", "exploration_rate")
REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
METRICS = {  # the names that the same thing has in our own agents
    "policy_gradient_loss": "loss/policy", "policy_objective": "loss/policy", "value_loss": "loss/value", "policy_loss": "loss/policy",
    "actor_loss": "loss/actor", "critic_loss": "loss/critic", "ent_coef_loss": "loss/ent_coef", "approx_kl": "kl",
    "kl_divergence_loss": "kl",
}  # fmt: skip


def vec_env(env: BatchEnv | None, spaces: Spaces, rows: int) -> Any:
    """`env` as stable-baselines3's VecEnv of N x A rows, a row for each agent of each copy; None: `rows` rows that only wait.

    `reset` begins nothing: it gives what the copies show now, which the runtime has begun or restored.
    """
    from stable_baselines3.common.vec_env import VecEnv

    box = spaces.observation
    assert isinstance(box, gymnasium.spaces.Box)

    class Copies(VecEnv):  # type: ignore[misc]
        def __init__(self) -> None:
            action = spaces.action  # an own copy: they seed it
            if isinstance(action, gymnasium.spaces.Discrete):
                own: Any = gymnasium.spaces.Discrete(int(action.n))
            else:
                assert isinstance(action, gymnasium.spaces.Box)
                low, high = finite_bounds(action)
                own = gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
            super().__init__(rows, gymnasium.spaces.Box(box.low, box.high, dtype=box.dtype), own)  # type: ignore[arg-type]
            self.render_mode = None

        def _rows(self, obs: Array) -> Array:
            return obs.reshape(rows, *obs.shape[2:]).copy()  # they keep it; the engine writes the next step over it

        def reset(self) -> Array:
            return np.zeros((rows, *(box.shape)), box.dtype) if env is None else self._rows(env.obs)

        def step_async(self, actions: Array) -> None:
            self._action = actions

        def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
            assert env is not None
            agents = env.num_agents
            step = env.step(self._action.reshape(env.num_envs, agents, *self._action.shape[1:]))
            ended = (step.terminated | step.truncated).repeat(agents)
            infos: list[dict[str, Any]] = [{}] * rows
            if ended.any():
                last = step.final_obs.reshape(rows, *step.final_obs.shape[2:])
                cut = (step.truncated & ~step.terminated).repeat(agents)
                for k in np.flatnonzero(ended):
                    infos[k] = {"terminal_observation": last[k].copy(), "TimeLimit.truncated": bool(cut[k])}
            return self._rows(step.obs), step.reward.reshape(rows).copy(), ended, infos  # rewards: they add to them

        def close(self) -> None:
            pass

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [getattr(self, attr_name, None)] * rows

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            raise NotImplementedError("copies have no attributes of their own")

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            raise NotImplementedError("copies have no methods of their own")

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * rows

    return Copies()


class StableBaselines:
    """An algorithm of stable-baselines3 behind `core.Agent` and `core.Driving`; `_register` makes a class for each.

    It works on one thread, on the processor; a CnnPolicy on as many threads as the run has.
    """

    name: ClassVar[str]
    algorithm: ClassVar[Algorithm]
    Config: ClassVar[type[AgentConfig]]

    def __init__(self, config: Any, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.spaces, self._seed = config, spaces, seed % 2**32  # numpy's old generator takes no more
        self._library = self._find()
        self._check_actions()
        self._options = self._checked()
        self._threads = threads if config.policy.startswith("Cnn") else 1
        self._random: tuple[Any, ...] | None = None  # numpy's and torch's random state, as the model left them
        self._callback: Any = None
        self._remarks: list[str] = []
        self.model: Any = self._build(None, 2)  # its policy is all that acting needs; `attach` makes the one that learns

    # --- what is asked for

    def _find(self) -> Any:
        """The library's class."""
        try:
            return getattr(importlib.import_module(self.algorithm.package), self.algorithm.cls)
        except ImportError:
            line = "sb3-contrib is not installed: pip install 'gumdrop[sb3]'"
            raise ValueError(f"agent {self.name}: {line}") from None

    def _check_actions(self) -> None:
        space, wants = self.spaces.action, self.algorithm.actions
        kind = {gymnasium.spaces.Discrete: "discrete", gymnasium.spaces.Box: "continuous"}.get(type(space), "other")  # type: ignore[call-overload]
        if kind == "other" or wants not in ("any", kind):
            instead = {"discrete": "sb3-dqn, sb3-qrdqn or sb3-ppo", "continuous": "sb3-sac, sb3-td3 or sb3-ppo"}.get(kind, "another")
            chooses = "discrete or continuous" if wants == "any" else wants
            raise ValueError(f"agent {self.name} chooses {chooses} actions, these are {space}: take {instead}")

    def _checked(self) -> dict[str, Any]:
        """`options` as the constructor takes them. Raises ValueError for a key or a value that it would not understand."""
        o, signature = self.config, inspect.signature(self._library).parameters
        ours = OURS if self.algorithm.num_steps else {key: way for key, way in OURS.items() if key != "n_steps"}
        known = [key for key in signature if key not in ours]
        options: dict[str, Any] = {}
        for key, value in o.options.items():
            what = f"agent {self.name}: options.{key}"
            if key in signature and key in ours:
                raise ValueError(f"{what} is not for options" + (f": set {ours[key]}" if ours[key] else ""))
            if key not in known:
                raise ValueError(f"{what}: no such option{suggest(key, known)}")
            options[key] = _value(value, signature[key], what)
        if not self.algorithm.num_steps:
            every = options.get("train_freq", signature["train_freq"].default)
            if not isinstance(every, int):
                raise ValueError(f"agent {self.name}: options.train_freq counts steps here: give a whole number")
            if o.num_steps % every:
                raise ValueError(f"agent {self.name}: num_steps={o.num_steps} is no multiple of train_freq={every}: change one")
        elif self.algorithm.cls in ("PPO", "TRPO", "A2C", "RecurrentPPO"):
            options["n_steps"] = o.num_steps
        policies = list(self._library.policy_aliases)
        if o.policy not in policies:
            raise ValueError(f"agent {self.name}: no policy {o.policy!r}{suggest(o.policy, policies)}")
        return options

    def _build(self, env: BatchEnv | None, rows: int) -> Any:
        """A fresh model over `rows` rows of `env`; the same parameters for any number of them."""
        options = dict(self._options) | {"policy_kwargs": dict(self._options.get("policy_kwargs") or {})}
        if env is None and not self.algorithm.num_steps:
            options["buffer_size"] = rows  # nothing is ever stored in it
        if getattr(self.config, "action_noise", 0) > 0:
            from stable_baselines3.common.noise import NormalActionNoise

            shape = self.spaces.action.shape or ()
            options["action_noise"] = NormalActionNoise(np.zeros(shape), np.full(shape, self.config.action_noise))
        self._random = None
        with self._contained(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            copies = vec_env(env, self.spaces, rows)
            try:
                model = self._library(self.config.policy, copies, seed=self._seed, device="cpu", **options)
            except (AssertionError, AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
                fault = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(f"agent {self.name}: stable-baselines3 refuses: {fault:.300}") from None
        self._remarks = [] if env is None else [" ".join(str(found.message).split()) for found in caught]
        return model

    @contextmanager
    def _contained(self) -> Iterator[None]:
        """Their code draws from the global generators of torch and numpy: it gets them as it left them, then they are put back."""
        import torch

        outside = torch.get_rng_state(), np.random.get_state(), random.getstate(), torch.get_num_threads()
        if self._random is not None:
            torch.set_rng_state(self._random[0])
            np.random.set_state(self._random[1])
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            self._random = torch.get_rng_state(), np.random.get_state()
            torch.set_rng_state(outside[0])
            np.random.set_state(outside[1])
            random.setstate(outside[2])
            if outside[3] != self._threads:
                torch.set_num_threads(outside[3])

    # --- acting and learning

    @property
    def num_steps(self) -> int:
        return int(self.config.num_steps)

    @property
    def note(self) -> str:
        """What a user should know of this run."""
        package = importlib.import_module(self.algorithm.package)
        made = f"learner: {self.algorithm.cls} of {self.algorithm.package} {package.__version__}"
        return ". ".join([made, *self._remarks])

    def initial(self, n: int) -> Carry:
        if not hasattr(self.model.policy, "lstm_actor"):
            return None
        lstm = self.model.policy.lstm_actor
        shape = (n, self.spaces.num_agents, lstm.num_layers, lstm.hidden_size)
        return {"hidden": np.zeros(shape, np.float32), "cell": np.zeros(shape, np.float32)}

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        lead = obs.shape[:2]
        rows = obs.reshape(-1, *obs.shape[2:])
        with self._contained():
            if carry is None:
                action, _ = self.model.predict(rows, deterministic=mode == "greedy")
            else:  # (N, A, layers, width) here, (layers, rows, width) there
                flat = [carry[name].reshape(len(rows), *carry[name].shape[2:]).swapaxes(0, 1) for name in ("hidden", "cell")]
                begun = np.zeros(len(rows), np.bool_)  # rows that begin hold zeros already, as theirs would
                action, after = self.model.predict(rows, tuple(flat), begun, deterministic=mode == "greedy")
                names = zip(("hidden", "cell"), after, strict=True)
                carry = {name: array.swapaxes(0, 1).reshape(carry[name].shape).copy() for name, array in names}
        return action.reshape(*lead, *action.shape[1:]), carry, {}

    def attach(self, env: BatchEnv, budget: float) -> None:
        """The model that learns, over the rows of `env`, with the state that this one has."""
        rows, state = env.num_envs * env.num_agents, self.state_dict()
        self.model = self._build(env, rows)
        with self._contained():
            total = budget * env.num_agents
            _, self._callback = self.model._setup_learn(total if math.isfinite(total) else math.inf)
            self._callback.on_training_start({}, {})
        self.load_state_dict(state)

    def drive(self, steps: int) -> float:
        """Collect, and, where the algorithm is off-policy, learn in between, as their `learn` does."""
        model, learned = self.model, 0.0
        with self._contained(), self._finite():
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
                    gradient_steps = model.gradient_steps if model.gradient_steps >= 0 else found.episode_timesteps
                    if gradient_steps > 0:
                        model.train(batch_size=model.batch_size, gradient_steps=gradient_steps)
                learned += time.perf_counter() - began
        return learned

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        """The update of an on-policy algorithm; metrics of either kind. `batch` is empty: the model keeps its own."""
        model = self.model
        with self._contained(), self._finite():
            if self.algorithm.num_steps:
                model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
                model.train()
        logged = {name.split("/")[-1]: value for name, value in model.logger.name_to_value.items()}
        model.logger.name_to_value.clear()
        found = {METRICS.get(name, name): float(value) for name, value in logged.items() if name != "n_updates"}
        if "entropy_loss" in found:
            found["entropy"] = -found.pop("entropy_loss")
        if math.isnan(found.get("explained_variance", 0)):  # they say so where all returns are equal
            del found["explained_variance"]
        return found

    @contextmanager
    def _finite(self) -> Iterator[None]:
        """Raise NonFinite where their code stumbles over, or leaves behind, parameters that are not."""
        try:
            yield
        except (AssertionError, RuntimeError, ValueError) as error:
            if self._infinite():
                raise NonFinite(f"{self._infinite()} is not finite: lower agent.options.learning_rate") from error
            raise
        if self._infinite():
            raise NonFinite(f"{self._infinite()} is not finite: lower agent.options.learning_rate")

    def _infinite(self) -> str:
        """Name of the policy's first parameter with a NaN or an infinity."""
        import torch

        return next((name for name, p in self.model.policy.named_parameters() if not torch.isfinite(p).all()), "")

    # --- state

    def state_dict(self) -> dict[str, Array]:
        import torch

        found: dict[str, Array] = {}
        modules, variables = self.model._get_torch_save_params()  # the library's own list of what is to be saved
        for name in modules:
            part = _part(self.model, name)
            if isinstance(part, torch.optim.Optimizer):
                found |= {f"{name}.{key}": array for key, array in _optimiser_state(part).items()}
            else:
                found |= {f"{name}.{key}": tensor.detach().cpu().numpy().copy() for key, tensor in part.state_dict().items()}
        found |= {name: _part(self.model, name).detach().numpy().copy() for name in variables}
        found |= {f"counter.{name}": np.int64(getattr(self.model, name)) for name in COUNTERS if hasattr(self.model, name)}  # type: ignore[misc]
        found |= {f"counter.{name}": np.float64(getattr(self.model, name)) for name in REALS if hasattr(self.model, name)}  # type: ignore[misc]
        assert self._random is not None
        state: Any = self._random[1]  # of the Mersenne twister: name, key, position, and a second Gaussian that is left
        found |= {
            "random.torch": self._random[0].numpy().copy(), "random.numpy": state[1].copy(),
            "random.numpy_rest": np.array(state[2:], np.float64),
            "random.actions": generator_state(self.model.action_space.np_random),
        }  # fmt: skip
        return {name: np.asarray(array) for name, array in found.items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        import torch

        check_arrays(state, self.state_dict(), f"agent {self.name}")
        modules, variables = self.model._get_torch_save_params()
        tensor = {name: torch.from_numpy(np.array(array)) for name, array in state.items() if array.dtype != np.uint64}
        for name in modules:
            part, own = _part(self.model, name), {key: t for key, t in tensor.items() if key.startswith(f"{name}.")}
            own = {key.removeprefix(f"{name}."): t for key, t in own.items()}
            if isinstance(part, torch.optim.Optimizer):
                _set_optimiser_state(part, own)
            else:
                part.load_state_dict({key: own[key] for key in part.state_dict()})
        for name in variables:
            _part(self.model, name).data.copy_(tensor[name])
        for kind, names in ((int, COUNTERS), (float, REALS)):
            for name in names:
                if hasattr(self.model, name):
                    setattr(self.model, name, kind(state[f"counter.{name}"]))
        position, has_gauss, gauss = state["random.numpy_rest"].tolist()
        twister = ("MT19937", state["random.numpy"].copy(), int(position), int(has_gauss), gauss)
        self._random = tensor["random.torch"], twister
        set_generator_state(self.model.action_space.np_random, state["random.actions"])

    def get_experience(self) -> dict[str, Array]:
        """Whether each row begins an episode, the LSTM's state, and of a replay buffer the rows that are filled."""
        model = self.model
        found: dict[str, Array] = {"starts": np.array(model._last_episode_starts, np.bool_)}
        for name, state in self._memories().items():
            found[name] = state.numpy().copy()
        if not self.algorithm.num_steps:
            buffer, found["replay.at"] = model.replay_buffer, np.array([model.replay_buffer.pos, model.replay_buffer.full])
            filled = _filled(*found["replay.at"], buffer.buffer_size)
            found |= {f"replay.{name}": getattr(buffer, name)[:filled].copy() for name in REPLAY if hasattr(buffer, name)}
        return found

    def set_experience(self, state: dict[str, Array]) -> None:
        model, expected = self.model, self.get_experience()
        if not self.algorithm.num_steps:
            buffer, at = model.replay_buffer, state.get("replay.at", np.zeros(0))
            if at.shape != (2,) or not (0 <= at[0] < buffer.buffer_size and at[1] in (0, 1)):
                raise ValueError(f"agent {self.name}: the replay buffer's position {at.tolist()} is outside it: another buffer_size?")
            filled = _filled(*at, buffer.buffer_size)
            expected |= {f"replay.{name}": getattr(buffer, name)[:filled] for name in REPLAY if hasattr(buffer, name)}
        check_arrays(state, expected, f"agent {self.name}")
        model._last_episode_starts = state["starts"].copy()
        if self._memories():
            import torch
            from sb3_contrib.common.recurrent.type_aliases import RNNStates

            hidden = [torch.from_numpy(np.array(state[name])) for name in self._memories()]
            model._last_lstm_states = RNNStates((hidden[0], hidden[1]), (hidden[2], hidden[3]))
        if not self.algorithm.num_steps:
            buffer.pos, buffer.full = int(at[0]), bool(at[1])
            for name in REPLAY:
                if hasattr(buffer, name):
                    getattr(buffer, name)[:filled] = state[f"replay.{name}"]

    def _memories(self) -> dict[str, Any]:
        """The LSTM states, tensors (layers, rows, width), that a recurrent model collects with."""
        states = getattr(self.model, "_last_lstm_states", None)
        if states is None:
            return {}
        names = (f"lstm.{who}.{what}" for who in ("actor", "critic") for what in ("hidden", "cell"))
        return dict(zip(names, (*states.pi, *states.vf), strict=True))


def _filled(position: int, full: int, size: int) -> int:
    """Rows of a replay buffer that mean something; the one after the last may hold its next observation."""
    return size if full else min(int(position) + 1, size)


def _part(model: Any, name: str) -> Any:
    for attribute in name.split("."):
        model = getattr(model, attribute)
    return model


def _optimiser_state(optimiser: Any) -> dict[str, Array]:
    """Moments and step counts by parameter number; zeros with step 0 for what has taken no step yet.

    What the moments are called is seen by letting a second optimiser of the same kind take a step.
    """
    import torch

    found: dict[str, Array] = {}
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    twin_of = torch.zeros(1, requires_grad=True)
    twin_of.grad = torch.zeros(1)
    twin = type(optimiser)([twin_of], **optimiser.defaults)
    twin.step()
    for number, parameter in enumerate(parameters):
        own = optimiser.state.get(parameter) or {}
        for key, value in twin.state[twin_of].items():
            if key == "step":
                found[f"{number}.{key}"] = np.array(float(own.get(key, 0)))
            else:
                like = own[key] if own else torch.zeros_like(parameter)
                found[f"{number}.{key}"] = like.detach().numpy().copy()
    return found


def _set_optimiser_state(optimiser: Any, state: dict[str, Any]) -> None:
    """Put back what `_optimiser_state` gave, as tensors."""
    import torch

    grouped: dict[int, dict[str, Any]] = {}
    for name, value in state.items():
        number, key = name.split(".", 1)
        grouped.setdefault(int(number), {})[key] = value
    whole = isinstance(optimiser, torch.optim.Adam)  # others count their steps in a plain number
    for held in grouped.values():
        held["step"] = held["step"].float() if whole else int(held["step"])
    document = optimiser.state_dict()
    document["state"] = {number: held for number, held in grouped.items() if float(held["step"]) > 0}
    optimiser.load_state_dict(document)


def _value(value: Any, parameter: inspect.Parameter, what: str) -> Any:
    """A plain value as their constructor takes it. Raises ValueError, one line, where it is of no kind that it takes."""
    key, annotation = parameter.name, parameter.annotation
    kinds = get_args(annotation) if get_origin(annotation) is types.UnionType or get_args(annotation) else (annotation,)
    schedule = any(callable(kind) and get_origin(kind) is not None and "Callable" in str(kind) for kind in kinds)
    if key == "policy_kwargs":
        return _policy_kwargs(value, what)
    if schedule and isinstance(value, str) and value.startswith(LINEAR):
        try:
            first = float(value.removeprefix(LINEAR))
        except ValueError:
            raise ValueError(f"{what} is {value!r:.40}: after {LINEAR} comes a number, as in {LINEAR}3e-4") from None
        return lambda left: left * first
    plain = [int, float] if float in kinds else [kind for kind in kinds if isinstance(kind, type)]
    plain += [str] * (str in kinds) + [type(None)] * (type(None) in kinds)
    plain += [dict] * any(get_origin(kind) is dict for kind in kinds)
    if type(value) not in plain:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "a group of keys"}
        wanted = [names[kind] for kind in plain if kind in names and not (kind is int and float in plain)]
        wanted += [f"{LINEAR}NUMBER"] * schedule + ["null"] * (type(None) in plain)
        raise ValueError(f"{what} is {value!r:.40}: give {' or '.join(wanted)}")
    if type(value) is int and float not in kinds and value < LEAST.get(key, 1):
        raise ValueError(f"{what} is {value}: it should be at least {LEAST.get(key, 1)}")
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"{what} is {value}: it should be finite")
    return value


def _policy_kwargs(value: Any, what: str) -> dict[str, Any]:
    """`policy_kwargs` with the activation function named instead of given."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is {value!r:.40}: give a group of keys, such as net_arch: [64, 64]")
    found = dict(value)
    if "activation_fn" in found:
        import torch

        name = found["activation_fn"]
        if name not in ACTIVATIONS:
            raise ValueError(f"{what}.activation_fn: no {name!r:.40}{suggest(str(name), list(ACTIVATIONS))}")
        found["activation_fn"] = getattr(torch.nn, ACTIVATIONS[name])
    return found


def _register(name: str, row: Algorithm) -> None:
    fields: dict[str, Any] = {
        "num_steps": (
            int,
            Field(row.num_steps or OFF_POLICY_STEPS, ge=1, le=100_000, description="steps per copy between updates"
                  if row.num_steps else "steps per copy between two rows of metrics; it learns every options.train_freq"),
        ),
        "policy": (str, Field(row.policy, description="the network, by stable-baselines3's name")),
        "options": (dict[str, Any], Field({}, description=f"arguments of {row.cls}, as stable-baselines3 documents them")),
    }  # fmt: skip
    if row.noise is not None:
        about = "sd of Gaussian noise on actions, which reach from -1 to 1"
        fields["action_noise"] = (float, Field(row.noise, ge=0, le=10, description=about))
    config = create_model("Config", __base__=AgentConfig, __module__=__name__, **fields)
    body = {"algorithm": row, "Config": config, "__doc__": f"{row.about}, by {row.package.replace('_', '-')}.", "__module__": __name__}
    register: Callable[[type[Any]], type[Any]] = agent(name)
    register(type(row.cls, (StableBaselines,), body))


for _name, _row in TABLE.items():
    _register(_name, _row)
