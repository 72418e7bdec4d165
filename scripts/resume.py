"""`gumdrop resume`: go on with a run that was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, RunsFolder, check_agent, check_env, find_run
from .train import Report, finish


def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name under --dir, or a path.")],
    directory: RunsFolder = Path("runs"),
    json: Json = False,
    report: Report = True,
    no_live: Annotated[bool, typer.Option("--no-live", help="No live view.")] = False,
) -> None:
    """Go on with a run from its newest intact checkpoint, to the same end as if it had never stopped."""
    from ..configs.loader import read_run

    folder = find_run(run, directory)
    config = read_run(folder / "config.yaml")
    check_env(config.env_id, config.env_options)
    check_agent(config.agent_name, config.agent_options)
    from ..agents.runtime.train import train

    finish(folder, lambda: train(config, folder, live=False if no_live else None, resume=True), json, report)
