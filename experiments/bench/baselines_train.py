"""Other people's PPO, for `gumdrop bench train`: what is compared, and how it learns.

Those of `BASELINES` collect from our engine, through their own environment interface, as many environments and steps as ours,
and learn with as many epochs, minibatches and units; all else is as they come. None is a dependency.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from ...envs.batch import flat_size
from ...envs.make import make
from ...store.arrays import Array
from ..run.machine import cores

if TYPE_CHECKING:
    from torch import Tensor

FUSED, TWO_TRUNKS = "fused", "fused, two trunks"  # those of our learners that baselines are compared with


class Task(NamedTuple):
    """What all learn: PPO's options by their names in our configuration."""

    world: str
    options: dict[str, Any]
    num_envs: int
    ppo: dict[str, Any]


class TrainedBaseline(NamedTuple):
    package: str
    version: str
    what: str  # how it collects and learns
    ours: str  # the learner of ours with the same network
    threads: tuple[int, ...]  # inside each of torch's operations: which it is tried with
    burst: Callable[[], int]  # rollout and update; returns how many environment steps that were


class _Environments:
    """Our engine for code that wants torch: observations as float32 (N, D), actions as any (N, 1)."""

    def __init__(self, task: Task) -> None:
        self.env: Any = make(task.world, task.options, num_envs=task.num_envs)
        self.width = flat_size(self.env.observation_space)
        self.obs = self._rows(self.env.reset(0))

    def _rows(self, obs: Array) -> Tensor:
        """The engine writes into the same array at each step, and baselines keep what they are shown: a copy."""
        import torch

        return torch.from_numpy(obs).view(len(obs), self.width).to(torch.float32, copy=True)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reward float32, terminated and truncated bool, (N,) each: the engine's own memory until the next step."""
        import torch

        step = self.env.step(actions.numpy())
        self.obs = self._rows(step.obs)
        return torch.from_numpy(step.reward)[:, 0], torch.from_numpy(step.terminated), torch.from_numpy(step.truncated)


def skrl(task: Task) -> Iterator[TrainedBaseline]:
    """One trunk for policy and value, as its documentation builds shared models."""
    import torch
    from skrl.agents.torch.ppo import PPO
    from skrl.envs.wrappers.torch import Wrapper
    from skrl.memories.torch import RandomMemory
    from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
    from skrl.trainers.torch import SequentialTrainer

    num_envs, o = _Environments(task), task.ppo
    spaces = {"observation_space": num_envs.env.observation_space, "action_space": num_envs.env.action_space, "device": "cpu"}

    class Env(Wrapper):  # type: ignore[misc]
        def reset(self) -> tuple[Tensor, dict[str, Any]]:
            return num_envs.obs, {}  # episodes go on from one call of its trainer to the next

        def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
            reward, terminated, truncated = (x[:, None] for x in num_envs.step(actions))
            return num_envs.obs, reward, terminated, truncated, {}

        def state(self) -> None:
            return None

        def render(self) -> None:
            return None

        def close(self) -> None:
            return None

    class Network(CategoricalMixin, DeterministicMixin, Model):  # type: ignore[misc]
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            CategoricalMixin.__init__(self, role="policy")
            DeterministicMixin.__init__(self, role="value")
            self.trunk = _trunk(num_envs.width, o["hidden"])
            self.policy_head = torch.nn.Linear(o["hidden"][-1], int(num_envs.env.action_space.n))
            self.value_head = torch.nn.Linear(o["hidden"][-1], 1)
            self.features: Tensor | None = None  # of the policy, for the value that is asked for right after it

        def act(self, inputs: dict[str, Any], *, role: str = "") -> Any:
            return (CategoricalMixin if role == "policy" else DeterministicMixin).act(self, inputs, role=role)

        def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
            if role == "policy":
                self.features = self.trunk(inputs["observations"])
                return self.policy_head(self.features), {}
            features = self.trunk(inputs["observations"]) if self.features is None else self.features
            self.features = None
            return self.value_head(features), {}

    network = Network()
    agent = PPO(
        models={"policy": network, "value": network},
        memory=RandomMemory(memory_size=o["num_steps"], num_envs=task.num_envs, device="cpu"),
        **spaces,
        cfg={
            "rollouts": o["num_steps"], "learning_epochs": o["update_epochs"], "mini_batches": o["num_minibatches"],
            "experiment": {"write_interval": 0, "checkpoint_interval": 0},
        },
    )  # fmt: skip
    quiet = {"timesteps": o["num_steps"], "disable_progressbar": True, "headless": True, "close_environment_at_exit": False}
    trainer = SequentialTrainer(env=Env(num_envs.env), agents=agent, cfg=quiet)
    what = "PPO, one trunk, SequentialTrainer, RandomMemory"
    yield _warm(TrainedBaseline("skrl", version("skrl"), what, FUSED, _either(), _updates(trainer.train, task)))


def rsl_rl(task: Task) -> Iterator[TrainedBaseline]:
    """Two networks: it shares no trunk. It knows continuous actions only, so the categorical distribution is ours."""
    import torch
    from rsl_rl.env import VecEnv
    from rsl_rl.modules.distribution import Distribution
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict

    num_envs, o = _Environments(task), task.ppo
    choices = int(num_envs.env.action_space.n)

    class Env(VecEnv):  # type: ignore[misc]
        num_envs, num_actions, device = task.num_envs, 1, "cpu"
        cfg: dict[str, Any] = {}

        def get_observations(self) -> Any:
            return TensorDict({"policy": num_envs.obs}, batch_size=[task.num_envs])

        def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, dict[str, Any]]:
            reward, terminated, truncated = num_envs.step(actions)
            return self.get_observations(), reward, terminated | truncated, {"time_outs": truncated}

    class Categorical(Distribution):  # type: ignore[misc]
        """Its interface, on torch's distribution; actions are (N, 1)."""

        input_dim = choices

        def update(self, mlp_output: Tensor) -> None:
            self.now = torch.distributions.Categorical(logits=mlp_output, validate_args=False)

        def sample(self) -> Any:
            return self.now.sample().unsqueeze(-1)

        def log_prob(self, outputs: Tensor) -> Any:
            return self.now.log_prob(outputs.squeeze(-1))

        def kl_divergence(self, old_params: tuple[Tensor], new_params: tuple[Tensor]) -> Tensor:
            return (old_params[0].exp() * (old_params[0] - new_params[0])).sum(-1)

        @property
        def params(self) -> tuple[Tensor]:
            return (self.now.logits,)  # log probabilities

        @property
        def entropy(self) -> Any:
            return self.now.entropy()

        @property
        def std(self) -> Tensor:  # for its log
            return self.now.probs

    network = {"class_name": "MLPModel", "hidden_dims": list(o["hidden"]), "activation": "tanh"}
    config = {
        "algorithm": {"class_name": "PPO", "num_learning_epochs": o["update_epochs"], "num_mini_batches": o["num_minibatches"]},
        "actor": network | {"distribution_cfg": {"class_name": Categorical}}, "critic": network,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]}, "num_steps_per_env": o["num_steps"], "save_interval": 1,
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its networks
        runner = OnPolicyRunner(Env(), config, device="cpu")
    what = "PPO, two networks, OnPolicyRunner, a categorical distribution of ours"
    burst = _updates(lambda: runner.learn(1), task)
    yield _warm(TrainedBaseline("rsl_rl", version("rsl-rl-lib"), what, TWO_TRUNKS, _either(), burst))


def stable_baselines3(task: Task, steps: int = 16_384) -> TrainedBaseline:
    """As most people use it: 8 environments through our Gymnasium view, its own defaults throughout. Batches are too small for
    a second thread."""
    import gymnasium
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    from ...envs.gym_ids import gym_id

    env = DummyVecEnv([lambda: gymnasium.make(gym_id(task.world), **task.options)] * 8)
    model = PPO("MlpPolicy", env, seed=0, device="cpu")

    def burst() -> int:
        model.learn(steps, reset_num_timesteps=False)
        return steps

    what = "PPO, 8 environments through the Gymnasium view, its defaults"
    return TrainedBaseline("stable_baselines3", version("stable_baselines3"), what, FUSED, (1,), burst)


BASELINES: dict[str, Callable[[Task], Iterator[TrainedBaseline]]] = {f.__name__: f for f in (skrl, rsl_rl)}


def _trunk(inputs: int, hidden: tuple[int, ...]) -> Any:
    """Full layers with tanh."""
    from torch.nn import Linear, Sequential, Tanh

    layers = [(Linear(i, o), Tanh()) for i, o in zip((inputs, *hidden), hidden, strict=False)]
    return Sequential(*(module for pair in layers for module in pair))


def _either() -> tuple[int, ...]:
    """One thread and all. Alone on a machine all are faster, by half; where something else takes a core, torch's threads
    wait for each other and all are several times slower than one."""
    return (1, cores()) if cores() > 1 else (1,)


def _updates(update: Callable[[], Any], task: Task) -> Callable[[], int]:
    def burst() -> int:
        update()
        return task.num_envs * int(task.ppo["num_steps"])

    return burst


def _warm(baseline: TrainedBaseline) -> TrainedBaseline:
    """The baseline after its first update: one that cannot learn here raises before anything is measured."""
    baseline.burst()
    return baseline
