"""The public Python interface: what `import gumdrop as gd` offers, and nothing else is stable.

Everything here works in a script, a notebook and a thread, without the command line. What the user can mend raises ValueError
with one line: the thing, what is wrong, the way out. Training that produces a NaN or infinity raises ArithmeticError.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..configs.schema import RunConfig
from ..store.arrays import Array
from ..store.run_folder import RunFolder
from .run.policy import Policy

if TYPE_CHECKING:
    from ..envs.batch import BatchEnv

RUNS = Path("runs")  # where runs are, unless told otherwise
PathLike = str | os.PathLike[str]


def make(
    id: str | type | Any, *, num_envs: int = 1, seed: int = 0, device: str = "cpu", threads: int | None = None, **options: Any
) -> BatchEnv:
    """A batch of `num_envs` environments that step together.

    Args:
        id: one of our worlds (`gd.worlds()`), any Gymnasium id, `module:Class` or `module:function`, or an importable class.
        seed: of everything random in it; environment i gets a stream of its own.
        device: "cpu", or "cuda" for our worlds on a GPU.
        threads: processor threads; None: chosen by size.
        options: the environment's own, such as `size=7`.

    Returns a `BatchEnv`: `reset(seed)` gives observations (N, A, ...) of N environments with A agents each; `step(action)`
    takes actions (N, A), or (N, A, D) float32, and gives `Step(obs, reward, terminated, truncated, final_obs)`; an environment
    whose episode ended has been reset already.

    Raises ValueError for an unknown id or option.

    >>> env = gd.make("maze", num_envs=4, size=5)
    >>> env.reset(seed=0).shape[:2]
    (4, 1)
    >>> step = env.step(np.zeros((4, 1), np.int64))
    >>> step.reward.shape, step.terminated.shape
    ((4, 1), (4,))
    >>> gd.make("maze", sise=5)
    Traceback (most recent call last):
    ValueError: world maze has no option 'sise': did you mean size?
    """
    from ..envs.make import make as made

    return made(_env_id(id), options, num_envs=num_envs, seed=seed, threads=threads, device=device)


def train(
    what: PathLike, *, env: str | type | Any = None, steps: float | None = None, seed: int | None = None,
    num_envs: int | None = None, name: str | None = None, env_options: Mapping[str, Any] | None = None,
    directory: PathLike = RUNS, progress: bool = True, **options: Any,
) -> Run:  # fmt: skip
    """Train an agent; everything about it is written into a new folder, `directory`/`name`.

    Args:
        what: a preset (`cartpole-fast`), an agent (`ppo`; then `env` is needed), or a YAML file, `NAME.yaml`.
        env: id of the environment as for `gd.make`, or an importable class; default: the preset's.
        steps: environment steps in all, e.g. `2e5`. Default: the preset's, or a million.
        seed: the one seed that everything random follows from: equal seeds give equal bits.
        num_envs: environments that step together.
        name: of the folder; default: made from preset, environment and agent, with a number.
        env_options: the environment's own options, as a dictionary.
        progress: a live panel on a terminal, a line every few seconds elsewhere; both on stderr.
        options: the agent's own (`gamma=0.98`), and those of the run: `eval_episodes`, `checkpoint_seconds`, `device`,
            `threads`, `track`, `plugins` and the other fields of `RunConfig`.

    Ctrl-C saves the run, then raises KeyboardInterrupt; `gd.load(path).resume()` goes on to the same bits as if it had never
    stopped. In another thread than the main one signals are left alone.

    Raises ValueError for unknown names and options, ArithmeticError where training produces a NaN or infinity.

    >>> run = gd.train("q-learning", env="frozenlake", steps=20_000, num_envs=64, seed=1, name="first", progress=False)
    >>> run.path.name, run.summary["status"]
    ('first', 'finished')
    >>> gd.train("q-learning", env="frozenlake", gama=0.9)
    Traceback (most recent call last):
    ValueError: agent q-learning has no option 'gama': did you mean gamma?
    """
    from ..agents.registry import agent_config
    from ..envs.external.apart import probe
    from ..envs.names import is_external, load_plugin_files
    from ..envs.registry import make_world
    from .run.new_folder import new_folder

    config, default = _configured(os.fspath(what), env, dict(env_options or {}), options, {
        "steps": steps, "seed": seed, "num_envs": num_envs, "name": name,
    })  # fmt: skip
    load_plugin_files(config.plugins)
    (probe if is_external(config.env_id) else make_world)(config.env_id, config.env_options)  # before a folder is made
    agent_config(config.agent_name, config.agent_options)
    folder = new_folder(Path(directory), config.name, default)
    try:
        return _trained(config.model_copy(update={"name": folder.name}), folder, progress)
    finally:
        RunFolder(folder).remove_unused()  # refused before anything was begun


def load(path: PathLike, *, directory: PathLike = RUNS) -> Run:
    """A run that was trained before, by its name in `directory` or by its path.

    Raises ValueError where there is none.

    >>> gd.load("lake")
    Run('lake': q-learning on frozenlake, seed 1, finished, 19,456 of 20,000 steps)
    >>> gd.load("lakes")
    Traceback (most recent call last):
    ValueError: no run 'lakes' in runs: did you mean lake?
    """
    from ..configs.suggest import suggest
    from ..store.run_folder import RunFolder

    name, root = os.fspath(path), Path(directory)
    places = [place for place in (root / name, Path(name)) if name.strip()]
    for place in places:
        folder = RunFolder(place)
        if folder.is_run:
            return Run(place)
        if folder.is_group:
            seeds = folder.runs()
            raise ValueError(f"{place} is a group of runs: load one of them, {seeds[0] if seeds else place / 'seed-0'}")
    known = [run.name for run in RunFolder(root).runs()] if root.is_dir() else []
    near = suggest(name[:100], known) if known else f": {root} holds no runs yet, gd.train makes one"
    raise ValueError(f"no run {name[:80]!r} in {root}{near}")


def evaluate(
    what: Run | PathLike, *, env: str | type | Any = None, episodes: int | None = None, seed: int = 1_000_000,
    mode: str | None = None, env_options: Mapping[str, Any] | None = None, **options: Any,
) -> Score:  # fmt: skip
    """Mean return over held-out episodes, beside random actions and, where it is known, the exact optimum.

    Args:
        what: a `Run`, its name or path; or with `env` the name of an agent that needs no training, such as `ucb1`.
        episodes: how many; default: the run's `eval_episodes`, 1,000 for an agent.
        seed: which episodes. Equal seeds give equal episodes to every agent.
        mode: "greedy" (default for a run: the likeliest actions) or "sample" (default for an agent).
        env_options, options: of the environment and of the agent, where `what` is an agent.

    Raises ValueError for unknown names.

    >>> gd.evaluate("random", env="bandit", env_options={"pulls": 10}, episodes=200).share_of_optimal < 0.9
    True
    """
    if env is None:
        run = what if isinstance(what, Run) else load(what)
        if options or env_options:
            raise ValueError(f"{next(iter([*options, *(env_options or {})]))}: a run keeps the options it was trained with")
        return run.evaluate(episodes, seed=seed, mode=mode or "greedy")
    if isinstance(what, Run):
        raise ValueError(f"run {what.path} brings its own environment: leave env away")
    from .run.evaluate import evaluate_named

    how: Any = mode or "sample"
    found = evaluate_named(os.fspath(what), _env_id(env), dict(env_options or {}), episodes or 1000, seed, options, how)
    return Score.of(found)


def compare(*runs: Run | PathLike, directory: PathLike = RUNS) -> dict[str, Any]:
    """Runs side by side, as `gumdrop compare --json` prints them.

    Single runs: `{"runs": [{"run", "env", "agent", "seed", "env_steps", "seconds", "evaluated", ...}], "notes": [...]}`;
    `evaluated` is the mean return that `evaluate` found, None before. Where one is a group of seeds (`gumdrop train --seeds`):
    `{"algorithms": [...]}`, interquartile means over training seeds with 95 % intervals.

    Raises ValueError for fewer than two, and for runs that do not exist.

    >>> run = gd.train("random", env="frozenlake", steps=4096, name="chance", progress=False)
    >>> [row["run"] for row in gd.compare("lake", run)["runs"]]
    ['lake', 'chance']
    """
    from .study.compare import compare_results, results, row

    if len(runs) < 2:
        raise ValueError("compare what with what? name at least two runs")
    folders = []
    for run in runs:
        group = Path(directory) / run if not isinstance(run, Run) else run.path
        if not RunFolder(group).is_group:
            group = run.path if isinstance(run, Run) else load(run, directory=directory).path
        folders.append(group)
    if any(RunFolder(folder).is_group for folder in folders):
        return compare_results(results(folders))
    note = "one training seed each: no interval over seeds; those shown are over episodes"
    return {"runs": [row(folder) for folder in folders], "notes": [note]}


def agents() -> dict[str, str]:
    """Names of all agents, each with a line about it.

    >>> gd.agents()["random"]
    'Actions drawn uniformly from the action space, an unbounded Box cut at 1,000. Learns nothing.'
    """
    from ..agents import agents_by_name

    return agents_by_name()


def worlds() -> dict[str, str]:
    """Ids of our worlds and of their presets, each with a line about it. Gymnasium's ids work as well.

    >>> gd.worlds()["frozenlake"]
    "Gymnasium's slippery FrozenLake, 4x4"
    """
    from ..envs import registry

    about = {name: (cls.__doc__ or "").strip().partition("\\n")[0] for name, cls in registry.worlds().items()}
    return dict(sorted((about | {name: preset.about for name, (_, preset) in registry.presets().items()}).items()))


@dataclass(frozen=True)
class Score:
    """An evaluation: E held-out episodes of one policy, and of random actions on the same ones.

    >>> score = gd.load("lake").evaluate(100)
    >>> len(score.returns), 0 <= score.mean <= 1, round(score.optimal, 3)
    (100, True, 0.744)
    """

    mean: float  #: mean return; where there are several agents, of the mean over them
    ci95: tuple[float, float]  #: 95 % interval of `mean` over episodes
    returns: Array = field(repr=False)  #: float64 (E,)
    random: float | None  #: mean return of random actions
    optimal: float | None  #: the exact optimum of those episodes, where the world has a solver
    share_of_optimal: float | None  #: mean / optimal
    document: dict[str, Any] = field(repr=False, compare=False)  #: the layout of `evaluation.json`

    @classmethod
    def of(cls, document: dict[str, Any]) -> Score:
        """From the layout of `evaluation.json`."""
        agent, random, optimal = document["agent"], document.get("random"), document.get("optimal")
        low, high = agent["ci95"]
        return cls(
            agent["mean"], (low, high), np.array(agent["returns"]), random["mean"] if random else None,
            optimal["mean"] if optimal else None, document.get("share_of_optimal"), document,
        )  # fmt: skip

    def __repr__(self) -> str:
        words = [f"return {self.mean:.3f} (95 %: {self.ci95[0]:.3f} to {self.ci95[1]:.3f}; {len(self.returns):,} episodes)"]
        words += [f"random {self.random:.3f}"] if self.random is not None else []
        words += [f"optimal {self.optimal:.3f}"] if self.optimal is not None else []
        words += [f"{100 * self.share_of_optimal:.1f} % of optimal"] if self.share_of_optimal is not None else []
        return f"Score({', '.join(words)})"


class Metrics(Mapping[str, Array]):
    """Metrics of a run by name: float64 arrays of equal length U, one number an update; NaN where there was none.

    `env_steps` is the x-axis of all of them.

    >>> metrics = gd.load("lake").metrics
    >>> bool(metrics["env_steps"][-1] == 19_456), metrics["return_mean"].shape == metrics["env_steps"].shape
    (True, True)
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
        self._arrays = {
            name: np.array([value if isinstance(value, (int, float)) else math.nan for value in column], np.float64)
            for name, column in columns.items()
        }

    def __getitem__(self, name: str) -> Array:
        try:
            return self._arrays[name]
        except KeyError:
            from ..configs.suggest import suggest

            raise KeyError(f"no metric {name!r}{suggest(name, list(self._arrays))}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        rows = len(next(iter(self._arrays.values()), ()))
        return f"Metrics({rows:,} updates: {', '.join(self._arrays)})"

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with `env_steps` as its index. Raises ValueError where pandas is not installed."""
        try:
            import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            raise ValueError("metrics.to_pandas needs pandas: `pip install pandas`") from None
        frame = pandas.DataFrame(self._arrays)
        return frame.set_index("env_steps") if "env_steps" in frame else frame


class Run:
    """A run folder: an agent, how it was trained and what came of it. `gd.train` and `gd.load` make one.

    >>> run = gd.load("lake")
    >>> run.config.agent_name, run.config.seed
    ('q-learning', 1)
    """

    def __init__(self, path: PathLike) -> None:
        self._path = Path(path)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    @property
    def config(self) -> RunConfig:
        """The resolved configuration: `env_id`, `env_options`, `agent_name`, `agent_options`, `steps`, `seed`, ..."""
        return RunFolder(self._path).config()

    @property
    def summary(self) -> dict[str, Any]:
        """`status` ("running", "finished", "interrupted", "failed"), `env_steps`, `seconds`, `versions`, `yardstick`, ..."""
        return RunFolder(self._path).read_summary()

    @property
    def metrics(self) -> Metrics:
        """What training logged, as arrays by name; read anew each time."""
        return Metrics(RunFolder(self._path).read_metrics())

    @cached_property
    def policy(self) -> Policy:
        """The trained policy as a function: `action, state = run.policy(obs, state)`. It is that of `deploy`: the best
        checkpoint where the run kept one, else the newest.

        >>> policy = gd.load("lake").policy
        >>> env = gd.make("frozenlake", num_envs=3)
        >>> action, state = policy(env.reset(seed=0)[:, 0])
        >>> action.shape, action.dtype.name
        ((3,), 'int64')
        """
        return Policy.of_run(self._path)

    def evaluate(
        self, episodes: int | None = None, *, seed: int = 1_000_000, mode: str = "greedy", checkpoint: str = "latest"
    ) -> Score:
        """Mean return over held-out episodes; see `gd.evaluate`.

        `checkpoint`: "latest", "best" where the run kept one (`eval_every`), "deploy", which is the one that `policy` and
        `export` take, or a number of environment steps. The greedy evaluation of the latest is what `gd.compare` reads.
        """
        from .run.evaluate import evaluate_run

        how: Any = mode
        if mode not in ("greedy", "sample"):
            raise ValueError(f"mode is {mode!r}: take 'greedy' or 'sample'")
        return Score.of(evaluate_run(self._path, episodes, seed, how, checkpoint))

    def report(self) -> Path:
        """Write `report.html` into the folder, one file that opens offline; its path.

        >>> gd.load("lake").report().suffix
        '.html'
        """
        from .report.run_page import write_report

        return write_report(self._path)

    def resume(self, steps: float | None = None, *, progress: bool = True) -> Run:
        """Go on with training, in place, from the newest intact checkpoint; returns this run.

        Without `steps` it goes on to its own end, to the same bits as if it had never stopped. `steps` is a new, larger total;
        rates that fall over a run then fall over the longer one. Raises ValueError where nothing is left to do.

        >>> gd.load("lake").resume(steps=32_768, progress=False).summary["env_steps"]
        32768
        """
        config = self.config
        if steps is not None:
            if steps != int(steps) or steps < config.steps:
                raise ValueError(f"steps is {steps:,}: the run's total is {config.steps:,}, give a larger whole number")
            config = config.model_copy(update={"steps": int(steps)})
            RunFolder(self._path).write_config(config)
        self.__dict__.pop("policy", None)  # the newest checkpoint will be another one
        _trained(config, self._path, progress, resume=True)
        return self

    def export(self, path: PathLike | None = None, *, to: str = "onnx") -> Path:
        """Write the policy to a file that other programs can run, with its normaliser, encoder and memory; its path.

        `to`: "onnx" (needs the extra `export`) or "torch-export". Default path: `policy.onnx` or `policy.pt2` in the folder.
        What is checked and how the inputs are named: docs/decisions/019-export.md. Raises ValueError for an agent that has no
        network.
        """
        from .run.export import export_run

        return export_run(self._path, to, None if path is None else Path(path)).path

    def __repr__(self) -> str:
        try:
            config = self.config
        except ValueError as error:
            return f"Run({self._path.name!r}: {error})"
        summary = self.summary
        status, done = summary.get("status", "not begun"), summary.get("env_steps", 0)
        what = f"{config.agent_name} on {config.env_id}, seed {config.seed}"
        return f"Run({self._path.name!r}: {what}, {status}, {done:,} of {config.steps:,} steps)"

    def _repr_html_(self) -> str:
        """What a notebook shows: the line of `repr`, and the last metrics."""
        last = {name: values[-1] for name, values in self.metrics.items() if len(values) and name != "updates"}
        cells = "".join(f"<tr><td>{escape(name)}</td><td>{value:,.5g}</td></tr>" for name, value in last.items())
        return f"<p><code>{escape(repr(self))}</code></p><table>{cells}</table>"


def _configured(
    what: str, env: Any, env_options: dict[str, Any], options: dict[str, Any], named: dict[str, Any]
) -> tuple[RunConfig, str]:
    """The configuration that `train` was asked for, and the stem of a name for it. Raises ValueError."""
    from ..agents.registry import agents as registered
    from ..configs.loader import presets, resolve
    from ..configs.suggest import suggest
    from ..envs.names import load_plugin_files

    run_options = {name: options.pop(name) for name in [*options] if name in RunConfig.model_fields}
    if "agent" in run_options or "env" in run_options:
        raise ValueError("agent: the first argument names it, its options are keywords: gd.train('ppo', env=..., gamma=0.9)")
    plugins = run_options.get("plugins") or []
    load_plugin_files([plugins] if isinstance(plugins, (str, Path)) else plugins)
    if "plugins" in run_options:
        run_options["plugins"] = [os.fspath(path) for path in ([plugins] if isinstance(plugins, (str, Path)) else plugins)]
    flags = {**named, **run_options}
    if env is not None or env_options:
        flags["env"] = ({} if env is None else {"id": _env_id(env)}) | env_options
    file = Path(what) if what.endswith((".yaml", ".yml")) else None
    if options:
        flags["agent"] = options
    if file is not None:
        return resolve(None, file, [], flags), file.stem
    if what in presets():
        config = resolve(what, None, [], flags)
        return config, what if env is None else f"{config.env_id}-{config.agent_name}"
    if what not in registered():
        raise ValueError(f"no preset and no agent {what[:80]!r}{suggest(what[:100], [*presets(), *registered()])}")
    if env is None:
        raise ValueError(f"agent {what} needs an environment: gd.train({what!r}, env='frozenlake'); gd.worlds() names ours")
    config = resolve(None, None, [], {**flags, "agent": {"name": what, **options}})
    return config, f"{config.env_id}-{what}"


def _env_id(given: Any) -> str:
    """The id of an environment, given as an id or as a class or function that a module offers under its own name.

    A run folder holds the id, and other processes make the environment by it: what they cannot import is refused.
    """
    if isinstance(given, str):
        return given
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", None)
    if not callable(given) or not module or not name:
        raise ValueError(f"environment {given!r:.60}: give an id, or a class or function that makes one")
    import sys

    if module == "__main__" or getattr(sys.modules.get(module), name, None) is not given:
        way = f"put it into a file such as my_env.py and say env='my_env:{name.rpartition('.')[2]}'"
        raise ValueError(f"environment {name} cannot be imported by the processes that resume or evaluate this run: {way}")
    return f"{module}:{name}"


def _trained(config: RunConfig, folder: Path, progress: bool, resume: bool = False) -> Run:
    """Train in `folder`; a signal that stopped it, once it is saved, goes on as Python's own exceptions do."""
    import signal

    from .run.signals import Interrupted
    from .run.train import train as run_training

    try:
        run_training(config, folder, None if progress else False, resume)
    except Interrupted as stop:
        if stop.exit_code == 128 + signal.SIGINT:
            raise KeyboardInterrupt(f"stopped and saved: gd.load({str(folder)!r}).resume() goes on") from None
        raise SystemExit(stop.exit_code) from None
    return Run(folder)
