"""One run, or several, as a self-contained page: curves between the random and the optimal line, distributions, costs.

This file reads run folders and turns figures into geometry; `run_page.html.j2` holds all markup, and its autoescaping is
what keeps a run's names and values from becoming markup. A missing or damaged file costs a sentence, not the report.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ...store.numbers import finite
from ...store.run_folder import RunFolder
from ..live.lines import TIME_PARTS, YardstickLines, distinct_names
from .charts import PALETTE, Series, chart, clock, histogram, interval_text, percent, reach, show, si
from .pictures import curves_png

Row = dict[str, Any]
NAMES = {
    "loss/policy": "policy loss",
    "loss/value": "value loss",
    "entropy": "entropy",
    "kl": "KL divergence",
    "clip_fraction": "clip fraction",
    "explained_variance": "explained variance",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "length_mean": "episode length",
    "steps_per_second": "steps per second",
}
COUNTERS = {"updates", "env_steps", "episodes", "return_mean", "return_std"}
ENDS = ("finished", "interrupted", "failed")
POINTS = 700  # a curve is averaged down to at most this many points
CURVES = 24  # small charts at most
LARGEST_GIF = 16 * 2**20  # bytes; a page beyond that is slow to open


class ReportError(ValueError):
    """There is nothing to report on; the message says what is missing."""


class RunContents(NamedTuple):
    """What a run folder holds; absent files are empty."""

    name: str
    path: str  # parent/name, for command lines
    config: Row
    metrics: list[Row]
    timing: list[Row]
    summary: Row
    evaluation: Row
    gif: bytes
    notes: list[str]  # sentences about what is missing


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into a run folder from what lies there, and return its path. Raises ReportError."""
    run = _load(Path(folder))
    out = RunFolder(folder).report_path
    _write(out, _render(_page(run)))
    return out


def compare_chart(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Overlay the learning curves of several runs in `out`, an .html page or a .png picture. Raises ReportError."""
    out = Path(out)
    if out.suffix.lower() not in (".html", ".png"):
        raise ReportError(f"cannot write a comparison to {out.name!r}: the name must end in .html or .png")
    if not folders:
        raise ReportError("nothing to compare: name at least one run folder")
    runs = [_load(Path(folder)) for folder in folders]
    names = distinct_names([run.name for run in runs], [run.path for run in runs])
    series = [
        Series(name, k, *_curve(run.metrics, "return_mean")) for k, (name, run) in enumerate(zip(names, runs, strict=True))
    ]
    lines = _common_lines(runs)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".png":
        curves_png(series, lines, out)
        return out
    notes = [f"{name}: {note}" for name, run in zip(names, runs, strict=True) for note in run.notes if "metrics" in note]
    if lines is None and any(_lines(run) for run in runs):
        notes.append("No random and optimal lines: the runs' worlds differ, or their yardsticks do.")
    table = []
    for run, name in zip(runs, names, strict=True):
        figures = _figures(run)
        env, agent = _dict(run.config.get("env")), _dict(run.config.get("agent"))
        row = [name, env.get("id", "-"), agent.get("name", "-"), run.config.get("seed", "-"), si(figures["steps"])]
        row += [f"{show(figures['return'])}{interval_text(figures['ci'])}", percent(figures["share"])]
        table.append([*row, clock(figures["seconds"]), si(figures["speed"])])
    page = {
        "title": " / ".join(names) if len(names) <= 3 else f"{len(names)} runs",
        "notes": notes,
        "about": "Returns are evaluated ones with their 95 % interval over episodes, or else the last ones in training.",
        "header": ("run", "world", "agent", "seed", "steps", "return", "of optimal", "time", "steps/s"),
        "table": table,
        "curve_about": "Return per episode against environment steps",
        "curve": chart(series, lines, smooth=True) if any(s.x for s in series) else None,
        "legend": legend(series),
        "meaning": lines.meaning if lines else "",
        "bars": None,
        "profile": None,
    }
    write_comparison(page, out)
    return out


def write_comparison(page: Row, out: Path) -> None:
    """Write the page of a comparison; `page` as in `compare_chart`."""
    _write(out, _render(page | {"compare": True}))


def legend(series: Sequence[Series]) -> list[Row]:
    return [{"name": s.name, "color": s.color % len(PALETTE), "dashed": s.color >= len(PALETTE)} for s in series]


# ---- reading ----


def curve_of(folder: Path) -> tuple[list[float], list[float]]:
    """Environment steps and returns while training of a run; damaged rows do not count."""
    return _curve(RunFolder(folder).read_metrics(), "return_mean")


def _load(folder: Path) -> RunContents:
    folder = folder.resolve()
    if not folder.is_dir():
        raise ReportError(f"no run folder {folder.name!r} here: `gumdrop train` makes one under runs/")
    notes: list[str] = []
    run = RunFolder(folder)
    config, metrics = run.read_config(notes), run.read_metrics()
    summary, evaluation = run.read_summary(notes), run.read_evaluation(notes)
    if not (config or metrics or summary or evaluation):
        raise ReportError(f"{folder.name!r} is not a run folder: it has no config.yaml, metrics.jsonl or summary.json")
    if not metrics:
        notes.append("There are no metrics yet: the run ended before its first update.")
    if summary.get("status") not in ENDS:
        notes.append("The run has not ended: it is still going on, or it was killed. Figures are those so far.")
    elif summary.get("status") == "interrupted":
        notes.append("The run was interrupted before its last step; gumdrop resume goes on from there.")
    elif summary.get("status") == "failed":
        notes.append("The run failed: its last lines may hold the cause.")
    gif = run.animation_path
    picture = gif.read_bytes() if gif.is_file() and gif.stat().st_size <= LARGEST_GIF else b""
    path = f"{folder.parent.name}/{folder.name}"
    timing = run.read_timing()
    return RunContents(folder.name, path, config, metrics, timing, summary, evaluation, picture, notes)


def _dict(value: Any) -> Row:
    return value if isinstance(value, dict) else {}


def _numbers(values: Any) -> list[float]:
    return [x for x in map(finite, values) if x is not None] if isinstance(values, list) else []


def _curve(rows: Iterable[Row], key: str) -> tuple[list[float], list[float]]:
    pairs = [(finite(row.get("env_steps")), finite(row.get(key))) for row in rows]
    points = [(x, y) for x, y in pairs if x is not None and y is not None]
    if len(points) > POINTS:
        edges = [n * len(points) // POINTS for n in range(POINTS + 1)]
        chunks = (points[a:b] for a, b in pairwise(edges))
        points = [(math.fsum(x for x, _ in c) / len(c), math.fsum(y for _, y in c) / len(c)) for c in chunks]
    return [x for x, _ in points], [y for _, y in points]


def _lines(run: RunContents) -> YardstickLines | None:
    yardstick, e = _dict(run.summary.get("yardstick")), run.evaluation
    optimal = _dict(e.get("optimal"))
    random = _first(yardstick.get("random"), _dict(e.get("random")).get("mean"))
    best = _first(yardstick.get("optimal"), optimal.get("mean"))
    meaning = yardstick.get("meaning") or optimal.get("meaning") or ""
    return None if random is None and best is None else YardstickLines(random, best, str(meaning))


def _evaluated_lines(run: RunContents) -> YardstickLines | None:
    """The lines of the very episodes that were evaluated; `_lines` are means over another sample."""
    e, optimal = run.evaluation, _dict(run.evaluation.get("optimal"))
    random = _first(e.get("random_exact"), _dict(e.get("random")).get("mean"))
    best = finite(optimal.get("mean"))
    return None if random is None or best is None else YardstickLines(random, best, str(optimal.get("meaning") or ""))


def _first(*values: Any) -> float | None:
    return next((x for x in map(finite, values) if x is not None), None)


def _largest(summary: Any, rows: list[Row], key: str) -> float | None:
    """The summary of a run that goes on is older than its rows."""
    found = [x for x in map(finite, (summary, *(row.get(key) for row in rows[-1:]))) if x is not None]
    return max(found, default=None)


def _common_lines(runs: list[RunContents]) -> YardstickLines | None:
    """The lines that all runs share, within 2 % of the distance between them: both are means over sampled episodes."""
    found = [_lines(run) for run in runs]
    lines = [x for x in found if x is not None and x.random is not None and x.optimal is not None]
    worlds = {repr(sorted(map(repr, _dict(run.config.get("env")).items()))) for run in runs}
    if not lines or len(lines) < len(runs) or len(worlds) > 1:
        return None
    for field in ("random", "optimal"):
        values = [getattr(x, field) for x in lines]
        if max(values) - min(values) > 0.02 * abs(lines[0].optimal - lines[0].random):  # type: ignore[operator]
            return None
    random, optimal = (math.fsum(getattr(x, f) for x in lines) / len(lines) for f in ("random", "optimal"))
    return YardstickLines(random, optimal, lines[0].meaning)


# ---- figures ----


def _figures(run: RunContents) -> Row:
    """The numbers that several parts of a page show; None where unknown."""
    agent, evaluation = _dict(run.evaluation.get("agent")), run.evaluation
    steps = _largest(run.summary.get("env_steps"), run.metrics, "env_steps")
    seconds = _largest(run.summary.get("seconds"), run.timing, "seconds")
    mean, ci = finite(agent.get("mean")), _numbers(agent.get("ci95"))
    lately = _curve(run.metrics, "return_mean")[1][-5:]
    lines = _evaluated_lines(run) or _lines(run)
    share = finite(evaluation.get("share_of_optimal"))
    return_ = mean if mean is not None else (math.fsum(lately) / len(lately) if lately else None)
    place = random_share = None
    if lines and lines.random is not None and lines.optimal is not None and lines.optimal > lines.random:
        place = None if return_ is None else (return_ - lines.random) / (lines.optimal - lines.random)
        random_share = lines.random / lines.optimal if lines.optimal > 0 else None
    return {
        "return": return_,
        "evaluated": mean is not None,
        "ci": ci if len(ci) == 2 else None,
        "episodes": finite(evaluation.get("episodes")),
        "share": share,
        "random_share": random_share if share is not None else None,
        "place": place,
        "lines": lines,
        "steps": steps,
        "planned": finite(run.config.get("steps")),
        "seconds": seconds,
        "speed": steps / seconds if steps and seconds else None,
        "length": finite(evaluation.get("length_mean")),
    }


def _page(run: RunContents) -> Row:
    figures, config = _figures(run), run.config
    lines = figures["lines"]
    curve = Series("return", 0, *_curve(run.metrics, "return_mean"))
    known = [key for key in NAMES if any(key in row for row in run.metrics)]
    others = sorted({str(k) for row in run.metrics for k in row} - set(NAMES) - COUNTERS)
    small = []
    for key in [*known, *others, "steps_per_second"][:CURVES]:
        series = Series(NAMES.get(key, key), 0, *_curve(run.timing if key == "steps_per_second" else run.metrics, key))
        if len(series.x) >= 2:
            last = show(series.y[-1]) if key != "steps_per_second" else si(series.y[-1])
            small.append({"name": series.name, "last": last, "chart": chart([series], None, 340, 150)})
    scale = None
    if lines and figures["place"] is not None:
        ci = figures["ci"] if figures["evaluated"] else None
        span = lines.optimal - lines.random
        low, high = ((x - lines.random) / span for x in ci) if ci else (figures["place"],) * 2
        at = [100 * min(1.0, max(0.0, x)) for x in (figures["place"], low, high)]
        scale = {"at": at[0], "low": at[1], "high": at[2], "percent": percent(figures["place"])}
    groups = [("run", {k: v for k, v in config.items() if k not in ("env", "agent")})]
    for part, first in (("env", "id"), ("agent", "name")):
        options = _dict(config.get(part))
        groups.append((part, {k: options[k] for k in sorted(options, key=lambda k, first=first: k != first)}))  # type: ignore[misc]
    status = str(run.summary.get("status") or "unfinished")
    return {
        "title": run.name,
        "status": status if status in ENDS else "unfinished",
        "env": _dict(config.get("env")).get("id", "?"),
        "agent": _dict(config.get("agent")).get("name", "?"),
        "seed": config.get("seed", "?"),
        "notes": run.notes,
        "f": figures,
        "lines": lines,
        "scale": scale,
        "curve": chart([curve], _lines(run), smooth=True, mark=figures if figures["evaluated"] else None) if curve.x else None,
        "smoothed": 2 * reach(len(curve.x)) + 1,
        "histogram": _distribution(run.evaluation),
        "gif": base64.b64encode(run.gif).decode() if run.gif[:4] == b"GIF8" else None,
        "small": small,
        "split": _split(run.timing),
        "groups": [(name, [(k, _yaml_value(v)) for k, v in values.items()]) for name, values in groups if values],
        "versions": sorted((str(k), str(v)) for k, v in _dict(run.summary.get("versions")).items()),
        "facts": _facts(run),
        "commands": _commands(run),
        "compare": False,
    }


def _facts(run: RunContents) -> list[tuple[str, str]]:
    commit, s, e = run.summary.get("git_commit"), run.summary, run.evaluation
    facts = [("git commit", commit), ("device", s.get("device")), ("threads", s.get("threads"))]
    facts += [("training seed", run.config.get("seed")), ("evaluation seed", e.get("seed"))]
    return [(name, str(value)) for name, value in facts if value is not None]


def _commands(run: RunContents) -> list[str]:
    """Lines to paste into a shell: every word from a run is quoted."""
    env, agent = _dict(run.config.get("env")), _dict(run.config.get("agent"))
    lines = []
    commit = re.match("[0-9a-f]{7,64}", str(run.summary.get("git_commit")))
    if commit:
        dirty = commit[0] != run.summary["git_commit"]
        lines.append(f"git checkout {commit[0]}" + ("  # uncommitted changes are missing there" if dirty else ""))
    if env.get("id") and agent.get("name"):
        words = ["gumdrop", "train", "--env", str(env["id"]), "--agent", str(agent["name"])]
        plain = {k: v for k, v in run.config.items() if k not in ("env", "agent", "name", "track", "project")}
        nested = {f"env.{k}": v for k, v in env.items() if k != "id"}
        nested |= {f"agent.{k}": v for k, v in agent.items() if k != "name"}
        words += [f"{k}={_yaml_value(v)}" for k, v in (plain | nested).items()]
        lines.append(" ".join(map(shlex.quote, words)))
    return [*lines, f"gumdrop eval {shlex.quote(run.path)}"]


def _yaml_value(value: Any) -> str:
    import yaml

    if isinstance(value, str):
        try:
            same = yaml.safe_load(value) == value
        except (ValueError, yaml.YAMLError):
            same = False
        return value if same else json.dumps(value)
    try:
        return json.dumps(value, default=str)
    except TypeError:  # a mapping whose keys JSON does not have
        return str(value)


def _distribution(evaluation: Row) -> Row | None:
    agent, random, optimal = (_dict(evaluation.get(key)) for key in ("agent", "random", "optimal"))
    returns, mean = _numbers(agent.get("returns")), finite(agent.get("mean"))
    if not returns:
        return None
    mean = math.fsum(returns) / len(returns) if mean is None else mean
    means = {"agent": mean, "random": finite(random.get("mean")), "optimal": finite(optimal.get("mean"))}
    return histogram(returns, _numbers(random.get("returns")), means)


def _split(timing: list[Row]) -> list[Row]:
    """Where the training seconds went: [{name, seconds, percent, color}]."""
    parts = [(name, math.fsum(finite(row.get(key)) or 0.0 for row in timing)) for name, key, _ in TIME_PARTS]
    known = math.fsum(seconds for _, seconds in parts)
    total = _first(*(row.get("seconds") for row in timing[-1:])) or 0.0
    if known <= 0:
        return []
    if total > 1.01 * known:
        parts.append(("everything else", total - known))
    whole = math.fsum(seconds for _, seconds in parts)
    colors = (5, 4, 3, 7)
    return [
        {"name": name, "seconds": clock(seconds), "percent": 100 * seconds / whole, "color": colors[k]}
        for k, (name, seconds) in enumerate(parts)
    ]


# ---- writing ----


def _render(page: Row) -> str:
    import jinja2

    source = resources.files(__package__).joinpath("run_page.html.j2").read_text("utf-8")
    env = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    env.filters |= {"show": show, "percent": percent, "si": si, "clock": clock}
    return env.from_string(source).render(page)


def _write(out: Path, page: str) -> None:
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(page, "utf-8", errors="replace")
    os.replace(partial, out)
