"""`gumdrop compare`: runs beside each other, as a table and as curves."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import Json, Refused, RunsFolder, check_out, emit, figure, find_run, only_json, run_name, table


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Names under --dir, or paths.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Curves: FILE.html or FILE.png.")] = None,
    directory: RunsFolder = Path("runs"),
    json: Json = False,
) -> None:
    """Compare runs: what each was, cost and reached; with --out also their learning curves."""
    if len(runs) < 2:
        raise Refused(f"compare {runs[0]!r:.80} with what? name at least two runs")
    if out is not None:
        check_out(out, (".html", ".png"))
    folders = [find_run(run, directory) for run in runs]
    rows = [row(folder) for folder in folders]
    if out is not None:
        from ..agents.runtime.report import compare_chart

        with only_json(json):
            compare_chart(folders, out)
    if json:
        emit({"runs": rows, "out": out})
        return
    header = (
        "run",
        "env",
        "agent",
        "seed",
        "steps",
        "seconds",
        "last return",
        "evaluated",
        "95 %",
        "of optimal",
    )
    table([_cells(r) for r in rows], header)
    if out is not None:
        print(out)


def row(folder: Path) -> dict[str, Any]:
    """What a run folder says of its run; missing files leave None. Raises ValueError for damaged ones."""
    from ..configs.loader import read_run

    config = read_run(folder / "config.yaml")
    summary, evaluation = _read(folder / "summary.json"), _read(folder / "evaluation.json")
    last = _last(folder / "metrics.jsonl")
    agent = evaluation.get("agent")
    agent = agent if isinstance(agent, dict) else {}
    return {
        "run": run_name(folder),
        "env": config.env["id"],
        "agent": config.agent["name"],
        "seed": config.seed,
        "status": summary.get("status"),
        "env_steps": last.get("env_steps", summary.get("env_steps")),
        "seconds": summary.get("seconds"),
        "return_last": last.get("return_mean"),
        "evaluated": agent.get("mean"),
        "ci95": agent.get("ci95"),
        "share_of_optimal": evaluation.get("share_of_optimal"),
        "yardstick": summary.get("yardstick"),
    }


def _cells(r: dict[str, Any]) -> list[str]:
    ci = f"{figure(r['ci95'][0])} to {figure(r['ci95'][1])}" if r["ci95"] else "-"
    share = "-" if r["share_of_optimal"] is None else f"{100 * r['share_of_optimal']:.1f} %"
    seconds = figure(r["seconds"], 1)
    numbers = [
        figure(r["seed"]),
        figure(r["env_steps"]),
        seconds,
        figure(r["return_last"]),
        figure(r["evaluated"]),
    ]
    return [r["run"], r["env"], r["agent"], *numbers, ci, share]


def _read(path: Path) -> dict[str, Any]:
    try:
        return _object(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise Refused(f"{path}: damaged, not text") from None


def _last(path: Path) -> dict[str, Any]:
    """The last whole line of a metrics file, with the last return in it; a line cut off does not count."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise Refused(f"{path}: damaged, not text") from None
    if not lines:
        return {}
    last = _object(lines[-1], path)
    for line in reversed(lines):
        found = _object(line, path)
        if "return_mean" in found:
            return last | {"return_mean": found["return_mean"]}
    return last


def _object(text: str, path: Path) -> dict[str, Any]:
    try:
        data = json_.loads(text)
    except (ValueError, RecursionError):
        raise Refused(f"{path}: damaged, not JSON") from None
    if not isinstance(data, dict):
        raise Refused(f"{path}: damaged, not a JSON object")
    return data
