"""What the future of a model of stable-baselines3 depends on, as plain arrays: nothing is pickled, nor read from a pickle."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ....store.arrays import Array, check_arrays
from ....store.random_state import generator_state, set_generator_state

WHOLES = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls")  # counters of a model, where it has them
REALS = ("_current_progress_remaining", "exploration_rate")
REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class Generators(NamedTuple):
    """States of the global generators that the library draws from."""

    torch: Any
    numpy: Any  # of the Mersenne twister: name, key, position, and a second Gaussian that is left

    @classmethod
    def now(cls) -> Generators:
        import torch

        return cls(torch.get_rng_state(), np.random.get_state())

    def use(self) -> None:
        import torch

        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)

    def arrays(self) -> dict[str, Array]:
        rest = np.array(self.numpy[2:], np.float64)
        return {"random.torch": self.torch.numpy().copy(), "random.numpy": self.numpy[1].copy(), "random.numpy_rest": rest}

    @classmethod
    def of(cls, arrays: dict[str, Array]) -> Generators:
        import torch

        position, has_gauss, gauss = arrays["random.numpy_rest"].tolist()
        twister = ("MT19937", arrays["random.numpy"].copy(), int(position), int(has_gauss), gauss)
        return cls(torch.from_numpy(arrays["random.torch"].copy()), twister)


@contextmanager
def contained(threads: int) -> Iterator[None]:
    """Whatever happens inside to the global generators, and to torch's number of threads, is undone at the end."""
    import torch

    before, python, many = Generators.now(), random.getstate(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        before.use()
        random.setstate(python)
        torch.set_num_threads(many)


def model_arrays(model: Any) -> dict[str, Array]:
    """Parameters, optimisers and counters: what the library itself would save of a model, by its names."""
    import torch

    found: dict[str, Array] = {}
    modules, variables = model._get_torch_save_params()
    for name in modules:
        part = _part(model, name)
        held = _moments(part) if isinstance(part, torch.optim.Optimizer) else part.state_dict()
        found |= {f"{name}.{key}": tensor.detach().numpy().copy() for key, tensor in held.items()}
    found |= {name: _part(model, name).detach().numpy().copy() for name in variables}
    for kind, names in ((np.int64, WHOLES), (np.float64, REALS)):
        found |= {f"counter.{name}": np.array(getattr(model, name), kind) for name in names if hasattr(model, name)}
    return found | {"random.actions": generator_state(model.action_space.np_random)}


def load_model_arrays(model: Any, state: dict[str, Array]) -> None:
    """Put back what `model_arrays` gave, checked already."""
    import torch

    def tensors(prefix: str) -> dict[str, Any]:
        names = [name for name in state if name.startswith(prefix)]
        return {name.removeprefix(prefix): torch.from_numpy(np.array(state[name])) for name in names}

    modules, variables = model._get_torch_save_params()
    for name in modules:
        part, held = _part(model, name), tensors(f"{name}.")
        if isinstance(part, torch.optim.Optimizer):
            _set_moments(part, held)
        else:
            part.load_state_dict({key: held[key] for key in part.state_dict()})
    for name in variables:
        _part(model, name).data.copy_(tensors(name)[""])
    for kind, names in ((int, WHOLES), (float, REALS)):
        for name in names:
            if hasattr(model, name):
                setattr(model, name, kind(state[f"counter.{name}"]))
    set_generator_state(model.action_space.np_random, state["random.actions"])


def _part(model: Any, name: str) -> Any:
    for attribute in name.split("."):
        model = getattr(model, attribute)
    return model


def _moments(optimiser: Any) -> dict[str, Any]:
    """Tensors by the parameter's number and what they are; zeros, with step 0, before the first step.

    What they are is seen by letting a second optimiser of the same kind take a step.
    """
    import torch

    probe = torch.zeros(1, requires_grad=True)
    probe.grad = torch.zeros(1)
    twin = type(optimiser)([probe], **optimiser.defaults)
    twin.step()
    found: dict[str, Any] = {}
    for number, parameter in enumerate(p for group in optimiser.param_groups for p in group["params"]):
        held = optimiser.state.get(parameter, {})
        for key in twin.state[probe]:
            if key == "step":  # a tensor here, a plain number there
                found[f"{number}.step"] = torch.tensor(float(held.get(key, 0)))
            else:
                found[f"{number}.{key}"] = held.get(key, torch.zeros_like(parameter))
    return found


def _set_moments(optimiser: Any, tensors: dict[str, Any]) -> None:
    """Put back what `_moments` gave."""
    import torch

    held: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        held.setdefault(int(number), {})[key] = tensor
    begun = {number: one for number, one in held.items() if float(one["step"]) > 0}
    if not isinstance(optimiser, torch.optim.Adam):
        for one in begun.values():
            one["step"] = int(one["step"])
    optimiser.load_state_dict(optimiser.state_dict() | {"state": begun})


def experience_arrays(model: Any) -> dict[str, Array]:
    """What a model keeps of the rows it collects in: which begin an episode, an LSTM's state, a replay buffer's filled part."""
    found: dict[str, Array] = {"starts": np.array(model._last_episode_starts, np.bool_)}
    found |= {name: tensor.numpy().copy() for name, tensor in _memories(model).items()}
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        found["replay.at"] = np.array([buffer.pos, buffer.full], np.int64)
        found |= {name: array.copy() for name, array in _filled(buffer, buffer.pos, buffer.full).items()}
    return found


def load_experience_arrays(model: Any, state: dict[str, Array], what: str) -> None:
    """Put back what `experience_arrays` gave. Raises ValueError, which begins with `what`, for what does not fit."""
    expected, buffer = experience_arrays(model), getattr(model, "replay_buffer", None)
    if buffer is not None:
        at = state.get("replay.at", np.empty(0))
        if at.shape != (2,) or not (0 <= at[0] < buffer.buffer_size and at[1] in (0, 1)):
            raise ValueError(f"{what}: the replay buffer stands at {at.tolist()}, outside it: another configuration?")
        expected |= _filled(buffer, int(at[0]), bool(at[1]))
    check_arrays(state, expected, what)
    model._last_episode_starts = state["starts"].copy()
    if _memories(model):
        import torch
        from sb3_contrib.common.recurrent.type_aliases import RNNStates

        hidden = [torch.from_numpy(np.array(state[name])) for name in _memories(model)]
        model._last_lstm_states = RNNStates((hidden[0], hidden[1]), (hidden[2], hidden[3]))
    if buffer is not None:
        buffer.pos, buffer.full = int(at[0]), bool(at[1])
        for name, array in _filled(buffer, buffer.pos, buffer.full).items():
            array[:] = state[name]


def _filled(buffer: Any, position: int, full: bool) -> dict[str, Array]:
    """Views of a replay buffer's rows that mean something; the one after the last may hold its next observation."""
    rows = buffer.buffer_size if full else min(position + 1, buffer.buffer_size)
    return {f"replay.{name}": getattr(buffer, name)[:rows] for name in REPLAY if hasattr(buffer, name)}


def _memories(model: Any) -> dict[str, Any]:
    """The LSTM states, (layers, rows, width), that a recurrent model collects with."""
    states = getattr(model, "_last_lstm_states", None)
    if states is None:
        return {}
    names = (f"lstm.{who}.{what}" for who in ("actor", "critic") for what in ("hidden", "cell"))
    return dict(zip(names, (*states.pi, *states.vf), strict=True))
