"""The page over docs/results: one table of what every proof measured, made from its JSON files alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...store.numbers import finite
from .charts import show

PAGE = "README.md"
INTRO = """# Results

Written by `make proofs` alone: each file holds the figures of one slow test with seeds, commit, device and versions. The tests
are in `tests/proofs/`. This page is made from the files whenever one of them is written; `+` behind a commit: files differed.
"""
SCENERY = {  # keys that say how it was measured, not what came out
    "git_commit", "device", "versions", "headline", "seeds", "episodes", "options", "num_envs", "rounds", "threads",
    "cores", "solved", "threads_of_one_seed", "seed", "slope_from", "slope_to", "paper_tasks_assumed", "pulls",
    "env_steps", "run", "agent", "env", "config",
}  # fmt: skip
AVERAGED = ("share_of_optimal", "mean")  # of a list of runs, the first one that all have
MOST = 4  # figures of a file without a headline


def write_page(folder: Path) -> Path:
    """Write `README.md` over all JSON files in `folder`. A file that is damaged has a line that says so."""
    lines = [INTRO, "| proof | figures | seeds | commit | device |", "|---|---|---|---|---|"]
    for path in sorted(folder.glob("*.json")):
        cells = _row(path)
        lines.append(f"| [{_cell(path.stem)}]({path.name}) | {' | '.join(_cell(text) for text in cells)} |")
    page = folder / PAGE
    page.write_text("\n".join(lines) + "\n", "utf-8")
    return page


def _row(path: Path) -> tuple[str, str, str, str]:
    """Figures, seeds, commit and device of one file."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return "damaged, not a JSON object", "-", "-", "-"
    commit = document.get("git_commit")
    short = (commit[:7] + ("+" if commit.endswith("+") else "")) if isinstance(commit, str) and commit else "-"
    return "; ".join(headline(document)) or "-", _seeds(document), short, str(document.get("device") or "-")


def headline(document: dict[str, Any]) -> list[str]:
    """`headline`, a list of [what, figure] pairs, in words; without one a few figures that speak for themselves."""
    given = document.get("headline")
    if isinstance(given, list):
        return [f"{pair[0]}: {_figure(pair[1])}" for pair in given if isinstance(pair, list) and len(pair) == 2]
    found = []
    runs = document.get("runs")
    if isinstance(runs, list) and runs and all(isinstance(run, dict) for run in runs):
        for key in AVERAGED:
            values = [run.get(key) for run in runs]
            if all(_is_number(value) for value in values):
                low, high = min(values), max(values)
                found.append(f"{_words(key)}: {_figure(math.fsum(values) / len(values))} ({_figure(low)} to {_figure(high)})")
                break
    for key, value in document.items():
        if key in SCENERY:
            continue
        if _is_number(value) or _is_interval(value):
            found.append(f"{_words(key)}: {_figure(value)}")
        elif isinstance(value, dict) and value and all(_is_number(item) for item in value.values()):
            found.append(f"{_words(key)}: {', '.join(f'{name} {_figure(item)}' for name, item in value.items())}")
        elif isinstance(value, dict) and value and all(_is_numbers(items) for items in value.values()):
            means = (f"{name} {_figure(math.fsum(items) / len(items))}" for name, items in value.items())
            found.append(f"{_words(key)}, means: {', '.join(means)}")
        elif isinstance(value, dict) and _is_number(value.get("mean")):
            found.append(f"{_words(key)}: {_figure(value['mean'])}{_ci(value.get('ci95'))}")
        elif isinstance(value, dict) and all(
            isinstance(v, dict) and _is_number(v.get("steps_per_second")) for v in value.values()
        ):
            found += [f"{name}: {_figure(item['steps_per_second'])} steps/s" for name, item in value.items()]
    worlds = document.get("worlds")
    if isinstance(worlds, list):
        found.append(f"worlds: {len(worlds)}")
    if not found:  # nothing speaks for itself: how much there is to read
        parts = {key: value for key, value in document.items() if isinstance(value, dict | list) and key not in SCENERY}
        found = [f"{_words(key)}: {len(value)}, in the file" for key, value in parts.items()]
    return found[:MOST]


def _seeds(document: dict[str, Any]) -> str:
    """How many training seeds a file rests on, as far as it says."""
    seeds, runs, returns = (document.get(key) for key in ("seeds", "runs", "final_returns"))
    if type(seeds) is int:
        return str(seeds)
    if isinstance(seeds, list):
        return str(len(seeds))
    numbers = {run["seed"] for run in _dicts(runs) if type(run.get("seed")) is int}
    if not numbers and isinstance(returns, dict):
        return str(max((len(values) for values in returns.values() if isinstance(values, list)), default="-"))
    return str(len(numbers)) if numbers else "-"


def _dicts(runs: Any) -> Iterable[dict[str, Any]]:
    lists = runs.values() if isinstance(runs, dict) else [runs]
    return [run for some in lists if isinstance(some, list) for run in some if isinstance(run, dict)]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and finite(value) is not None


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_number(item) for item in value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(item) for item in value)


def _ci(value: Any) -> str:
    return f" ({_figure(value)})" if _is_interval(value) else ""


def _figure(value: Any) -> str:
    if _is_interval(value):
        return f"{_figure(value[0])} to {_figure(value[1])}"
    if not _is_number(value):
        return str(value)
    if value and abs(value) < 1:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 1e7 else f"{value:,}" if isinstance(value, int) else show(value)


def _words(key: str) -> str:
    return str(key).replace("_", " ")


def _cell(text: str) -> str:
    """Text in a Markdown table."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())
