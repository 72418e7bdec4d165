"""`gumdrop compare`: runs, or groups of seeds, beside each other, as a table and as curves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import complete
from .common import Json, Refused, RunsFolder, check_out, emit, figure, find_run, is_group, only_json, table


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...", help="Names under --dir, or paths; groups of seeds, too.", autocompletion=complete.runs
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Curves: FILE.html or FILE.png.")] = None,
    directory: RunsFolder = Path("runs"),
    json: Json = False,
) -> None:
    """Compare runs: what each was, cost and reached; groups made by train --seeds as algorithms, over their seeds."""
    if len(runs) < 2:
        raise Refused(f"compare {runs[0]!r:.80} with what? name at least two runs")
    if out is not None:
        check_out(out, (".html", ".png"))
    folders = [find_run(run, directory, groups=True) for run in runs]
    _algorithms(folders, out, json) if any(map(is_group, folders)) else _single(folders, out, json)
    if out is not None and not json:
        print(out)


def _algorithms(folders: list[Path], out: Path | None, json: bool) -> None:
    from ..experiments.study.compare import compare_results, results

    found = results(folders)
    judged = compare_results(found)
    if out is not None:
        from ..experiments.report.compare_page import draw

        with only_json(json):
            draw(found, judged, out)
    if json:
        emit({**judged, "out": out})
        return
    cells = [
        [row["name"], row["agent"], seeds_of(row), figure(row["env_steps"]), figure(row["seconds"], 1), value(row["iqm"]),
         ends(row["iqm"]), probability(row["improvement"]), share(row["share_of_optimal"])]
        for row in judged["algorithms"]
    ]  # fmt: skip
    better = f"P(better than {judged['algorithms'][0]['name']})"
    table(cells, ("algorithm", "agent", "seeds", "steps", "seconds", "IQM", "95 %", better, "of optimal"))
    for note in judged["notes"]:
        print(note, file=sys.stderr)


def _single(folders: list[Path], out: Path | None, json: bool) -> None:
    from ..experiments.study.compare import row

    rows = [row(folder) for folder in folders]
    if out is not None:
        from ..experiments.report.run_page import compare_chart

        with only_json(json):
            compare_chart(folders, out)
    note = "one training seed each: no interval over seeds; those shown are over episodes"
    if json:
        emit({"runs": rows, "notes": [note], "out": out})
        return
    header = ("run", "env", "agent", "seed", "steps", "seconds", "last return", "evaluated", "95 %", "of optimal")
    table([_cells(r) for r in rows], header)
    print(note, file=sys.stderr)


def _cells(r: dict[str, Any]) -> list[str]:
    ci = f"{figure(r['ci95'][0])} to {figure(r['ci95'][1])}" if r["ci95"] else "-"
    of_optimal = "-" if r["share_of_optimal"] is None else f"{100 * r['share_of_optimal']:.1f} %"
    numbers = [figure(r["seed"]), figure(r["env_steps"]), figure(r["seconds"], 1)]
    returns = [figure(r["return_last"]), figure(r["evaluated"])]
    return [r["run"], r["env"], r["agent"], *numbers, *returns, ci, of_optimal]


# ---- cells of a table of algorithms ----


def seeds_of(row: dict[str, Any]) -> str:
    """10, or 9 of 10 where some were left out."""
    used, all_of_them = len(row["seeds"]), len(row["seeds"]) + len(row["left_out"])
    return str(used) if used == all_of_them else f"{used} of {all_of_them}"


def value(estimate: dict[str, Any] | None) -> str:
    return figure(estimate["value"]) if estimate else "-"


def ends(estimate: dict[str, Any] | None) -> str:
    return f"{figure(estimate['ci95'][0])} to {figure(estimate['ci95'][1])}" if estimate and estimate["ci95"] else "-"


def probability(estimate: dict[str, Any] | None) -> str:
    if not estimate:
        return "-"
    interval = estimate["ci95"]
    return f"{estimate['value']:.2f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")


def share(estimate: dict[str, Any] | None) -> str:
    return f"{100 * estimate['value']:.1f} %" if estimate else "-"
