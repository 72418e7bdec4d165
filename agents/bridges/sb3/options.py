"""What a user may hand to the constructors of stable-baselines3: plain data, checked against what they take."""

from __future__ import annotations

import inspect
import math
from typing import Any, get_args, get_origin

from ....configs.suggest import suggest

OURS = {  # arguments of their constructors that are not for `options`, and where they are set instead
    "policy": "agent.policy", "env": "env.id", "seed": "seed", "n_steps": "agent.num_steps",
    "action_noise": "agent.action_noise", "device": "device", "tensorboard_log": "track", "verbose": "",
    "_init_setup_model": "", "rollout_buffer_class": "", "replay_buffer_class": "", "stats_window_size": "",
}  # fmt: skip
LEAST = {"learning_starts": 0, "gradient_steps": -1, "sde_sample_freq": -1, "top_quantiles_to_drop_per_net": 0}  # others: 1
ACTIVATIONS = {"tanh": "Tanh", "relu": "ReLU", "elu": "ELU", "gelu": "GELU", "silu": "SiLU", "leaky_relu": "LeakyReLU"}
LINEAR = "lin_"  # before a number, as in rl-baselines3-zoo: it falls to 0 over the run
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "a group of keys"}


def checked(agent: str, options: dict[str, Any], constructor: Any, on_policy: bool) -> dict[str, Any]:
    """`options` as `constructor` takes them. Raises ValueError, one line, for a key or a value that it would not understand."""
    signature = inspect.signature(constructor).parameters
    ours = {key for key in OURS if on_policy or key != "n_steps"}  # off-policy, n_steps is of n-step returns
    known = [key for key in signature if key not in ours]
    found: dict[str, Any] = {}
    for key, value in options.items():
        if key not in signature:
            raise ValueError(f"agent {agent}: no option {key!r:.40}{suggest(key, known)}")
        if key in ours:
            raise ValueError(f"agent {agent}: {key} is not for options" + (f": set {OURS[key]}" if OURS[key] else ""))
        found[key] = _value(value, signature[key], f"agent {agent}: options.{key}")
    return found


def _value(value: Any, parameter: inspect.Parameter, what: str) -> Any:
    """A plain value as their constructor takes it."""
    key, kinds = parameter.name, get_args(parameter.annotation) or (parameter.annotation,)
    if key == "policy_kwargs":
        return _policy_kwargs(value, what)
    schedule = any("Callable" in str(kind) for kind in kinds)
    if schedule and isinstance(value, str) and value.startswith(LINEAR):
        try:
            first = float(value.removeprefix(LINEAR))
        except ValueError:
            raise ValueError(f"{what} is {value!r:.40}: after {LINEAR} comes a number, as in {LINEAR}3e-4") from None
        return lambda left: left * first
    plain: list[Any] = [kind for kind in (*NAMES, type(None)) if kind in [get_origin(kind) or kind for kind in kinds]]
    if float in plain and int not in plain:
        plain.append(int)
    if type(value) not in plain:
        wanted = [name for kind, name in NAMES.items() if kind in plain and not (kind is int and float in plain)]
        wanted += [f"{LINEAR}NUMBER"] * schedule + ["null"] * (type(None) in plain)
        raise ValueError(f"{what} is {value!r:.40}: give {' or '.join(wanted)}")
    if type(value) is int and float not in plain and value < LEAST.get(key, 1):
        raise ValueError(f"{what} is {value}: it should be at least {LEAST.get(key, 1)}")
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"{what} is {value}: it should be finite")
    return value


def _policy_kwargs(value: Any, what: str) -> dict[str, Any]:
    """`policy_kwargs`; the activation function is named there, not given."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is {value!r:.40}: give a group of keys, such as net_arch=[64, 64]")
    found = dict(value)
    if "activation_fn" in found:
        import torch

        name = found["activation_fn"]
        if name not in ACTIVATIONS:
            raise ValueError(f"{what}.activation_fn: no {name!r:.40}{suggest(str(name), list(ACTIVATIONS))}")
        found["activation_fn"] = getattr(torch.nn, ACTIVATIONS[name])
    return found
