"""`RunFolder`: the folder of a run, or of a group of runs. Every file in it is reached through this class.

runs/NAME/          config.yaml  metrics.jsonl  timing.jsonl  summary.json  evaluation.json  report.html  checkpoints/
runs/GROUP/         group.yaml   group.json     seed-0/ seed-1/ ...: a run each
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..configs.loader import dump, dump_group, read_group, read_run
from ..configs.schema import RunConfig
from . import checkpoint, names
from .checkpoint import Checkpoint, CheckpointError, Group
from .json_files import Row, read_json, read_rows, require_json, require_rows, write_json


class RunFolder:
    """A path with the names of what lies there. Making one reads and writes nothing.

    `read_*` take a missing or damaged file as not there; `require_*` raise ValueError, one line, for a damaged one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def parent(self) -> RunFolder:
        return RunFolder(self.path.parent)

    # ---- whether, and one process at a time ----

    @property
    def is_run(self) -> bool:
        return _is_file(self.path / names.CONFIG)

    @property
    def is_group(self) -> bool:
        """Whether it is what `train --seeds` makes: a folder of runs."""
        return _is_file(self.path / names.GROUP)

    def make(self) -> bool:
        """Make the folder; True if it was not there."""
        fresh = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        return fresh

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder's lock. Raises ValueError where another process trains in it."""
        import fcntl

        with open(self.path / names.LOCK, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(f"run {self} is being trained by another process: wait for it, or stop it") from None
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the folder and hold its lock; if that fails and nothing was begun in a new folder, its name is free again."""
        fresh = self.make()
        try:
            with self.lock():
                yield
        finally:
            if fresh:
                self.remove_unused()

    def remove_unused(self) -> None:
        """Remove the folder if nothing was begun in it."""
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} <= {names.LOCK}:
            shutil.rmtree(self.path, ignore_errors=True)

    # ---- configuration ----

    def config(self) -> RunConfig:
        """The run's configuration. Raises ConfigError."""
        return read_run(self.path / names.CONFIG)

    def write_config(self, config: RunConfig) -> None:
        (self.path / names.CONFIG).write_text(dump(config))

    def read_config(self, notes: list[str]) -> Row:
        """The configuration as it stands there, unchecked; {} and a sentence in `notes` where it is missing or damaged."""
        import yaml

        try:
            found = yaml.safe_load((self.path / names.CONFIG).read_text("utf-8"))
        except FileNotFoundError:
            notes.append(f"{names.CONFIG} is missing: the configuration is not known.")
            return {}
        except (ValueError, RecursionError, yaml.YAMLError):
            notes.append(f"{names.CONFIG} is damaged and was left out.")
            return {}
        return found if isinstance(found, dict) else {}

    # ---- figures ----

    @property
    def has_metrics(self) -> bool:
        return (self.path / names.METRICS).exists()

    def read_metrics(self) -> list[Row]:
        return read_rows(self.path / names.METRICS)

    def require_metrics(self) -> list[Row]:
        return require_rows(self.path / names.METRICS)

    def read_timing(self) -> list[Row]:
        return read_rows(self.path / names.TIMING)

    def figure_paths(self) -> tuple[Path, Path]:
        """metrics.jsonl and timing.jsonl, for `Tracker`, which appends to them."""
        return self.path / names.METRICS, self.path / names.TIMING

    def read_summary(self, notes: list[str] | None = None) -> Row:
        return read_json(self.path / names.SUMMARY, notes)

    def require_summary(self) -> Row:
        return require_json(self.path / names.SUMMARY)

    def write_summary(self, document: Row) -> None:
        write_json(self.path / names.SUMMARY, document)

    def read_evaluation(self, notes: list[str] | None = None) -> Row:
        return read_json(self.path / names.EVALUATION, notes)

    def require_evaluation(self) -> Row:
        return require_json(self.path / names.EVALUATION)

    def write_evaluation(self, document: Row) -> None:
        write_json(self.path / names.EVALUATION, document)

    @property
    def evaluation_path(self) -> Path:
        return self.path / names.EVALUATION

    @property
    def report_path(self) -> Path:
        return self.path / names.REPORT

    @property
    def animation_path(self) -> Path:
        return self.path / names.ANIMATION

    # ---- TensorBoard and W&B ----

    @property
    def tensorboard_path(self) -> Path:
        return self.path / names.TENSORBOARD

    @property
    def wandb_path(self) -> Path:
        """What belongs to W&B: its offline files, and the status, the start values and the log of the process that feeds it."""
        return self.path / names.WANDB

    @property
    def wandb_id_path(self) -> Path:
        return self.path / names.WANDB_ID

    # ---- checkpoints ----

    def save(self, step: int, tensors: Mapping[str, Group], info: Row, keep: int) -> None:
        """Write a checkpoint and make it the latest; see `checkpoint.save`."""
        checkpoint.save(self.path, step, tensors, info, keep)

    def mark_best(self, step: int | None) -> None:
        """Let `best` name the checkpoint of `step`, which is then never swept away; None: no checkpoint."""
        checkpoint.mark_best(self.path, step)

    def checkpoint(self, which: str = names.LATEST) -> Checkpoint:
        """`latest`, `best`, `deploy` (best where there is one, else latest) or a number of environment steps.

        Raises CheckpointError, one line, where there is none.
        """
        if which == names.LATEST:
            return checkpoint.load(self.path)
        best = checkpoint.best_step(self.path)
        if which == "deploy":
            return checkpoint.load(self.path) if best is None else checkpoint.load_step(self.path, best)
        if which == names.BEST:
            if best is None:
                raise CheckpointError(f"run {self} has no best checkpoint: train with eval_every=N, or take latest")
            return checkpoint.load_step(self.path, best)
        if not which.isdecimal():
            raise CheckpointError(f"checkpoint {which!r:.40}: name latest, best or a number of environment steps")
        return checkpoint.load_step(self.path, int(which))

    @property
    def has_checkpoint(self) -> bool:
        return any((self.path / names.CHECKPOINTS).glob("step-*"))

    # ---- groups ----

    def group(self) -> tuple[RunConfig, list[int]]:
        """Configuration and seeds of a group. Raises ConfigError."""
        return read_group(self.path / names.GROUP)

    def write_group(self, config: RunConfig, seeds: Sequence[int]) -> None:
        (self.path / names.GROUP).write_text(dump_group(config, seeds))

    def remove_group(self) -> None:
        (self.path / names.GROUP).unlink()

    def seed(self, seed: int) -> RunFolder:
        """The run of one seed of a group."""
        return RunFolder(self.path / names.seed_name(seed))

    @property
    def has_seeds(self) -> bool:
        return any(self.path.glob(names.seed_name(0).replace("0", "*")))

    def runs(self) -> list[RunFolder]:
        """Runs that lie in this folder, by name."""
        return [folder for folder in map(RunFolder, sorted(self.path.iterdir())) if folder.is_run]

    def arm(self, name: str) -> RunFolder:
        """The group of one arm of a leaderboard or an ablation."""
        return RunFolder(self.path / name)

    def read_group_result(self) -> Row:
        return read_json(self.path / names.GROUP_RESULT)

    def write_group_result(self, document: Row) -> None:
        write_json(self.path / names.GROUP_RESULT, document)

    def write_leaderboard(self, document: Row) -> None:
        write_json(self.path / names.LEADERBOARD, document)

    def write_ablation(self, document: Row) -> None:
        write_json(self.path / names.ABLATION, document)

    @property
    def ablation_path(self) -> Path:
        return self.path / names.ABLATION

    @property
    def leaderboard_path(self) -> Path:
        return self.path / names.LEADERBOARD


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or a null byte
        return False
