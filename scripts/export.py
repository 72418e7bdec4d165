"""`gumdrop export`: a run's policy for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, RunsFolder, emit, find_run, only_json
from .options import RunName


def export(
    run: RunName,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="onnx, or torch-export.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Default: policy.onnx or policy.pt2 in the run folder.")
    ] = None,
    directory: RunsFolder = Path("runs"),
    json: Json = False,
) -> None:
    """Write a run's policy to a file that other programs can run, and check it there: with its normaliser, its encoder and,
    where it remembers, its memory as inputs and outputs. A JSON file beside it names them."""
    folder = find_run(run, directory)
    from ..experiments.run.export import export_run

    with only_json(json):
        made = export_run(folder, to, out)
    if json:
        emit({"file": made.path, "sidecar": made.sidecar, "check": made.check})
        return
    print(f"{made.path}  (inputs and outputs: {made.sidecar})")
    if made.check is None:
        print("not checked: onnxruntime is not installed, `pip install gumdrop[export]`")
    else:
        same = "same greedy actions" if not made.check.actions_differ else f"{made.check.actions_differ} actions differ"
        print(f"checked on {made.check.observations:,} observations: {same}, largest difference {made.check.difference:.1e}")
