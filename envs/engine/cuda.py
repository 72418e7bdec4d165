"""The rules on a GPU: the same functions, compiled for CUDA by numba, one thread an environment, the same bits as on a CPU.

State, constants and buffers live on the device. `step` brings its results to the host, so that everything which works
with an `Engine` works with a `CudaEngine`; `step_device` leaves them where they are, for torch and others that read
``__cuda_array_interface__``; `step_shared` only puts a step on somebody's stream. ``NUMBA_ENABLE_CUDASIM=1`` runs the
same kernels in numba's simulator, without a GPU.
"""

from __future__ import annotations

import contextlib
import functools
import math
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numba import config, cuda

from ...store.arrays import Array
from ..batch import Step
from ..world import World
from .compile import Spans, binder, is_helper, kernel_key, make_spans, rebound, referenced, rules_of
from .engine import COUNTERS, Engine
from .partial_evaluation import Static, partially_evaluated

THREADS = 128  # of a block
RESULTS = ("obs", "reward", "terminated", "truncated")  # what every step changes and callers read
ENDED = ("final_obs", "final_mask", "ended_return", "ended_length")  # what changes only where an episode ends
EVERYTHING = frozenset({"state", "mask", *RESULTS, *ENDED, *COUNTERS})


def why_not() -> str | None:
    """Why no kernel can run on a GPU here, in one line; None: it can."""
    if cuda.is_available():
        return None
    error = str(cuda.cuda_error() or "numba finds no NVVM library: is the CUDA toolkit installed?")
    lines = [line.strip() for line in error.splitlines() if line.strip() and not line.startswith("Error at driver init")]
    reason = lines[0].rstrip(".") if lines else error.strip()
    return f"device 'cuda' cannot be used here ({reason}): take device 'cpu'"


def gpu() -> str:
    """Name of the GPU, for tables."""
    name = "simulator" if config.ENABLE_CUDASIM else cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


@contextlib.contextmanager
def _exact_arithmetic() -> Iterator[None]:
    """Whatever numba compiles for CUDA within rounds after every operation, as IEEE 754 and our CPU kernels do.

    By default NVVM contracts a * b + c into one fused multiply-add, which rounds once and so differs in the last bit
    (NVVM IR specification, option -fma). numba.cuda has no option for it, so this adds NVVM's options on their way. With
    -fma=0, PTX has mul.rn and add.rn, which its assembler must not fuse either (PTX ISA, section on mul).
    """
    if config.ENABLE_CUDASIM:
        yield
        return
    from numba.core.compiler_lock import global_compiler_lock
    from numba.cuda.cudadrv import nvvm

    with global_compiler_lock:
        original = nvvm.compile_ir
        nvvm.compile_ir = functools.partial(original, fma=False, prec_div=True, prec_sqrt=True, ftz=False)
        try:
            yield
        finally:
            nvvm.compile_ir = original


def _lesser(a: Any, b: Any) -> Any:
    return b if b < a else a


def _greater(a: Any, b: Any) -> Any:
    return b if b > a else a


def _square_root(x: Any) -> Any:
    return math.sqrt(x)


@functools.cache
def _device_numpy() -> types.ModuleType:
    """numpy as kernels see it: numba.cuda knows math.sqrt, correctly rounded as IEEE 754 wants it, but not np.sqrt."""
    module = types.ModuleType("numpy")
    module.__dict__.update(vars(np), sqrt=cuda.jit(device=True)(_square_root))
    return module


def _substitutes(function: Any, made: dict[Any, Any], static: Static) -> dict[str, Any]:
    """What the names in `function` mean on the device, where that is something else than in Python."""
    found: dict[str, Any] = {}
    for name, value in referenced(function).items():
        if is_helper(value):
            found[name] = _on_device(value, made, static)
        elif value is np:
            found[name] = _device_numpy()
    for name, own in (("min", _lesser), ("max", _greater)):  # numba's own, since 0.68, do not compile for CUDA
        if name in function.__code__.co_names and name not in function.__globals__:
            found[name] = _on_device(own, made, static)
    return found


def _on_device(function: Any, made: dict[Any, Any], static: Static = ()) -> Any:
    """`function`, cut down to `static`, as a device function, and first its helpers; the simulator runs the plain ones.

    Numba finds a callee under its name in the caller's globals, where plain helpers stand, registered for the CPU. So
    each function is made anew over globals in which helpers are device functions. `made` keeps those made already.
    """
    if config.ENABLE_CUDASIM:
        return function
    function = partially_evaluated(function, static)
    if function not in made:
        made[function] = cuda.jit(device=True)(rebound(function, _substitutes(function, made, static)))
    return made[function]


def _kernel(body: Callable[..., None]) -> Any:
    """`body` as a kernel; wrap-around of unsigned arithmetic is meant, though Python in the simulator warns of it."""
    if not config.ENABLE_CUDASIM:
        # Link-time optimisation, which NVIDIA's own numba-cuda does by default, would contract after all. Its jit forgets
        # `lto` where the function comes in a second call (0.30), as it does for a decorator.
        return cuda.jit(body, **({} if cuda.implementation == "Built-in" else {"lto": False}))

    def simulated(*args: Any) -> None:
        with np.errstate(over="ignore"):
            body(*args)

    return cuda.jit(simulated)


@functools.cache
def _programs(
    world_class: type[World], constants: type, static: Static, spelling: str, agents: int, masked: bool
) -> Spans:  # fmt: skip
    """Kernels over all environments, each with the arguments of the span of its name less lo and hi."""
    made: dict[Any, Any] = {}
    reset_rule, step_rule, observe_rule, legal_rule = (_on_device(rule, made, static) for rule in rules_of(world_class, masked))
    rules = reset_rule, step_rule, observe_rule, legal_rule
    spans = make_spans(*rules, _on_device(binder(constants, dict(static)), made), agents)
    step_span, reset_span, observe_span = (_on_device(span, made) for span in spans)

    def step(s: Any, c: Any, b: Any, action: Any, limit: int, autoreset: bool) -> None:
        for i in range(cuda.grid(1), b.active.shape[0], cuda.gridsize(1)):
            step_span(i, i + 1, s, c, b, action, limit, autoreset)

    def reset(s: Any, c: Any, b: Any) -> None:
        for i in range(cuda.grid(1), b.active.shape[0], cuda.gridsize(1)):
            reset_span(i, i + 1, s, c, b)

    def observe(s: Any, c: Any, b: Any) -> None:
        for i in range(cuda.grid(1), b.active.shape[0], cuda.gridsize(1)):
            observe_span(i, i + 1, s, c, b)

    return Spans(_kernel(step), _kernel(reset), _kernel(observe))


def _find_illegal(action: Any, actions: int, first: Any) -> None:
    """first[0] becomes the lowest environment with an action outside 0..actions-1."""
    for i in range(cuda.grid(1), action.shape[0], cuda.gridsize(1)):
        for k in range(action.shape[1]):
            if action[i, k] < 0 or action[i, k] >= actions:
                cuda.atomic.min(first, 0, i)


@functools.cache
def _illegal_finder() -> Any:
    return cuda.jit(_find_illegal)


def _upload(arrays: Any) -> Any:
    """A NamedTuple with its arrays on the device and its numbers as they are."""
    return type(arrays)(*(cuda.to_device(v) if isinstance(v, np.ndarray) else v for v in arrays))


def _argument(value: Any) -> Any:
    """What a kernel is given: the simulator passes tuples on as they are, and its stand-in arrays are slow."""
    if config.ENABLE_CUDASIM and hasattr(value, "_fields"):
        return type(value)(*(getattr(v, "_ary", v) for v in value))
    return value


class Shared(NamedTuple):
    """What `step_shared` reads and fills: the engine's own arrays on the device, with `__cuda_array_interface__`."""

    action: Any  # int64 (N, A) or float32 (N, A, D): write here, legal ones only
    obs: Any  # (N, A, *observation shape)
    final_obs: Any
    reward: Any  # float32 (N, A)
    terminated: Any  # bool (N,)
    truncated: Any
    ended_return: Any  # float64 (N, A), where an episode ended
    ended_length: Any  # int64 (N,)
    mask: Any  # bool (N, A, actions): legal actions of `obs`; (N, A, 1), unused, where the world has no masks
    final_mask: Any  # as `mask`, of `final_obs`


class CudaEngine(Engine):
    """N environments of a world on a GPU; interface, results and checkpoints are those of `Engine`, bit for bit.

    `state` and what else the host reads is copied from the device when it is asked for: a view to look at, not to write
    to. Raises ValueError where there is no GPU.
    """

    def __init__(self, world: World, num_envs: int = 1, seed: int = 0, id: str = "") -> None:
        fault = why_not()
        if fault:
            raise ValueError(fault)
        super().__init__(world, num_envs, seed, threads=1, id=id)

    @property
    def state(self) -> Any:
        """The world's state as host arrays, brought up to date."""
        self._pull("state")
        return self._host_state

    @state.setter
    def state(self, state: Any) -> None:
        self._host_state = state

    def _prepare(self) -> None:
        n, shape = self.num_envs, self.observation_space.shape
        assert shape is not None
        self._stale: set[str] = set()  # what the device has changed since the host last read it
        self._device_state, self._device_b = _upload(self._host_state), _upload(self._b)
        self._device_constants = _upload(self.constants)
        self._device_action = cuda.to_device(np.zeros(self._action_shape, self._action_dtype))
        self._illegal = cuda.to_device(np.array([n], np.int64))
        self._grid = (2, 4) if config.ENABLE_CUDASIM else ((n + THREADS - 1) // THREADS, THREADS)
        self._programs = _programs(*kernel_key(self.world))
        self._launches: dict[tuple[str, int], Any] = {}
        b, wide = self._device_b, (n, self.num_agents, *shape)
        masks = b.final_mask if self.masked else None
        self._device_step = Step(b.obs.reshape(*wide), b.reward, b.terminated, b.truncated, b.final_obs.reshape(*wide), masks)

    def _launch(self, name: str, program: Any, *args: Any, stream: int = 0) -> None:
        """Run a kernel over all environments, on a CUDA stream of that handle; the first time it is compiled."""
        args = tuple(_argument(value) for value in args)
        if (name, stream) not in self._launches:
            with _exact_arithmetic(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numba warns of small grids
                where = (*self._grid, cuda.external_stream(stream)) if stream else self._grid
                self._launches[name, stream] = program.specialize(*args)[where]
        self._launches[name, stream](*args)

    def _run(self, name: str, *args: Any, stream: int = 0) -> None:
        arrays = self._device_state, self._device_constants, self._device_b
        self._launch(name, getattr(self._programs, name), *arrays, *args, stream=stream)

    def _pull(self, *names: str) -> None:
        for name in self._stale.intersection(names):
            if name == "state":
                for device, host in zip(self._device_state, self._host_state, strict=True):
                    device.copy_to_host(host)
            else:
                getattr(self._device_b, name).copy_to_host(getattr(self._b, name))
            self._stale.discard(name)

    def _push(self, *names: str) -> None:
        for name in names:
            if name == "state":
                for device, host in zip(self._device_state, self._host_state, strict=True):
                    device.copy_to_device(host)
            else:
                getattr(self._device_b, name).copy_to_device(getattr(self._b, name))
            self._stale.discard(name)

    def _run_reset(self) -> None:
        self._pull("reward")  # a reset leaves it as it was
        self._run("reset")
        self._stale |= {"state", "obs", "mask", "terminated", "truncated", *COUNTERS}
        self._pull(*RESULTS)

    def _run_observe(self) -> None:
        self._run("observe")
        self._stale |= {"obs", "mask"}
        self._pull("obs")

    def native(self) -> None:
        """These environments are not the host's to step."""

    def step_legal(self, action: Array, autoreset: bool = True) -> Step:
        """As `Engine.step_legal`. Of ended episodes something is copied only after a step that ended one."""
        self._device_action.copy_to_device(action)
        unread = self._stale.intersection(ENDED)
        self._run("step", self._device_action, self._limit, autoreset)
        self._stale |= EVERYTHING
        self._pull(*RESULTS)
        if self._b.terminated.any() or self._b.truncated.any():
            self._pull(*ENDED)
        else:
            self._stale -= set(ENDED) - unread
        return self._step

    def step_device(self, action: Any, autoreset: bool = True) -> Step:
        """One step of all environments whose results stay on the device: a `Step` of arrays with `__cuda_array_interface__`.

        `action` is a C-contiguous array on the device, int64 (N, A) for Discrete or float32 (N, A, D), torch's for one, or
        anything that `step` takes. Whole numbers are checked on the device: ValueError before anything moves. The
        arrays are the engine's buffers: valid until the next step, read only.
        """
        action = self._there(action)
        if self._actions is not None:
            self._check_on_device(action)
        self._run("step", action, self._limit, autoreset)
        self._stale |= EVERYTHING
        return self._device_step

    def shared(self) -> Shared:
        """The arrays of `step_shared`; they stay where they are for good."""
        step, b = self._device_step, self._device_b
        return Shared(
            self._device_action, step.obs, step.final_obs, step.reward, step.terminated, step.truncated, b.ended_return,
            b.ended_length, b.mask, b.final_mask,
        )  # fmt: skip

    def step_shared(self, stream: int = 0) -> None:
        """Put a step of all environments, with the actions in `shared().action`, on a CUDA stream (its handle; 0: numba's own).

        Nothing is checked and nothing awaited, so that the launch may be captured into a CUDA graph, if it is not the
        first one on that stream: that compiles. Python does not run when a graph is replayed: call `changed` afterwards.
        """
        self._run("step", self._device_action, self._limit, True, stream=stream)

    def changed(self) -> None:
        """Tell that `step_shared` has been at work: waits for it, and the host reads everything afresh."""
        self.synchronize()
        self._stale |= EVERYTHING

    def to_device(self, action: Array) -> Any:
        """`action`, checked, on the device: what `step_device` takes without copying."""
        return cuda.to_device(self._legal(action))

    def _there(self, action: Any) -> Any:
        """`action` as an array on the device of the shape and dtype that the kernel reads. Raises ValueError."""
        if not hasattr(action, "copy_to_host"):  # not numba's own
            if getattr(action, "__cuda_array_interface__", None) is None:
                self._device_action.copy_to_device(self._legal(action))
                return self._device_action
            action = cuda.as_cuda_array(action)
        if action.shape != self._action_shape or action.dtype != self._action_dtype or not action.is_c_contiguous():
            raise ValueError(
                f"action on the device is {action.dtype}{tuple(action.shape)}: world {self.id} wants "
                f"C-contiguous {self._action_dtype}{self._action_shape}"
            )
        return action

    def _check_on_device(self, action: Any) -> None:
        assert isinstance(self.action_space, gymnasium.spaces.Discrete)
        self._launch("illegal", _illegal_finder(), action, int(self.action_space.n), self._illegal)
        i = int(self._illegal.copy_to_host()[0])
        if i < self.num_envs:
            self._illegal.copy_to_device(np.array([self.num_envs], np.int64))
            raise ValueError(f"action {action.copy_to_host()[i].tolist()} of environment {i} is outside {self.action_space}")

    def synchronize(self) -> None:
        """Wait until the device has done all that it was asked for."""
        cuda.synchronize()
