"""`gumdrop report`: write a run's report again."""

from __future__ import annotations

from pathlib import Path

from .common import Json, RunsFolder, emit, find_run, only_json
from .options import RunName


def report(
    run: RunName,
    directory: RunsFolder = Path("runs"),
    json: Json = False,
) -> None:
    """Write report.html into a run folder: one file that opens offline."""
    folder = find_run(run, directory)
    from ..store.run_folder import RunFolder

    RunFolder(folder).config()  # the report itself is lenient
    from ..experiments.report.run_page import write_report

    with only_json(json):
        path = write_report(folder)
    emit({"report": path}) if json else print(path)
