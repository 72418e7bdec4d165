"""One process at a time trains in a run folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"  # held by the process that trains in a folder


def remove_unused(folder: Path) -> None:
    """Remove a run folder in which nothing was begun: its name stays free."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {LOCK}:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """Hold the run folder's lock; raise ValueError where another process trains in it."""
    import fcntl

    with open(folder / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"run {folder} is being trained by another process: wait for it, or stop it") from None
        yield
