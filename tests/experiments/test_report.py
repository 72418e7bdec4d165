"""The report: its figures are the run's, it loads nothing, escapes everything, and survives whatever is missing."""

from __future__ import annotations

import json
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gumdrop.experiments.report import charts
from gumdrop.experiments.report.run_page import ReportError, compare_chart, write_report

EVIL = "<script>alert('x')</script>\"><img src=https://evil.example/x onerror=alert(1)>"
YARDSTICK = {"random": 1.25, "optimal": 7.5, "meaning": "optimum of an agent that sees everything"}


def make_run(folder: Path, updates: int = 100, seed: int = 0, env: dict[str, Any] | None = None) -> Path:
    """A run folder as training and evaluation leave it: returns rise from 1 to 6."""
    folder.mkdir(parents=True)
    config = {
        "env": {"id": "candy", "size": 6} if env is None else env,
        "agent": {"name": "ppo", "gamma": 0.995, "hidden": [64, 32]},
        "num_envs": 64,
        "steps": 200_000,
        "seed": seed,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with (folder / "metrics.jsonl").open("w") as metrics, (folder / "timing.jsonl").open("w") as timing:
        for k in range(1, updates + 1):
            row = {"updates": k, "env_steps": 2000 * k, "episodes": 90, "return_mean": 1 + 5 * k / updates}
            row |= {"entropy": 1.4 - k / 200, "kl": 0.01, "loss/value": 1 / k, "my/own": float(k)}
            metrics.write(json.dumps(row) + "\n")
            row = {"updates": k, "env_steps": 2000 * k, "seconds": 0.5 * k, "steps_per_second": 4000.0}
            timing.write(json.dumps(row | {"world_s": 0.05, "policy_s": 0.1, "learn_s": 0.25}) + "\n")
    summary = {"status": "finished", "env_steps": 2000 * updates, "seconds": 0.5 * updates, "git_commit": "abc1234def"}
    summary |= {"versions": {"torch": "2.13.0"}, "device": "cpu", "threads": 2, "yardstick": YARDSTICK}
    (folder / "summary.json").write_text(json.dumps(summary))
    agent, random = [6.0] * 75 + [8.0] * 25, [0.0] * 50 + [2.0, 3.0] * 25
    evaluation = {
        "episodes": 100,
        "seed": 4242,
        "agent": {"mean": 6.5, "ci95": [6.33, 6.67], "returns": agent},
        "random": {"mean": 1.25, "ci95": [1.0, 1.5], "returns": random},
        "optimal": {"mean": 7.5, "meaning": YARDSTICK["meaning"]},
        "share_of_optimal": 0.8667,
        "normalised": 0.84,
        "length_mean": 13.5,
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "episode.gif").write_bytes(b"GIF89a" + bytes(30))
    return folder


class Page(HTMLParser):
    """Elements with attributes, and the visible words by section id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: dict[str, str] = {}
        self.open: list[str] = []
        self.section = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pairs = {key: value or "" for key, value in attrs}
        self.elements.append((tag, pairs))
        if tag == "section" and "id" in pairs:
            self.section = pairs["id"]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            for key in (self.section, "all"):
                self.words[key] = self.words.get(key, "") + " " + " ".join(data.split())

    def all(self, tag: str, cls: str = "") -> list[dict[str, str]]:
        return [a for t, a in self.elements if t == tag and cls in (a.get("class", "") + " ").split(" ")]

    def hover(self, k: int = 0) -> Any:
        return json.loads([a for t, a in self.elements if "data-hover" in a][k]["data-hover"])


def read(path: Path) -> Page:
    page = Page(path.read_text("utf-8"))
    assert page.open == [], "every element is closed"
    return page


def assert_loads_nothing(page: Page) -> None:
    for tag, attributes in page.elements:
        for key, value in attributes.items():
            if key in ("src", "href", "srcset", "data", "action", "poster", "xlink:href", "background"):
                assert value.startswith("data:"), f"<{tag} {key}={value[:60]}>"
            assert not key.startswith("on"), f"<{tag} {key}>"
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
    policy = [a["content"] for a in page.all("meta", "") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy and "default-src 'none'" in policy[0]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|innerHTML", page.html)


def test_figures_of_the_run_are_in_the_page(tmp_path: Path) -> None:
    path = write_report(make_run(tmp_path / "runs" / "my-run"))
    assert path == tmp_path / "runs" / "my-run" / "report.html"
    page = read(path)
    assert_loads_nothing(page)
    assert "https://" not in page.html and "http://" not in page.html
    figures = page.words["figures"]
    for part in (
        "86.7",
        "of the optimal return",
        "random gets 16.7 %",
        "6.50",
        "6.33 to 6.67",
        "100",
        "13.50",
        "200k",
        "50.0 s",
        "4k",
    ):
        assert part in figures, part
    assert "84.0 % of the way from random to optimal" in figures and YARDSTICK["meaning"] in figures
    everything = page.words["all"]
    for part in ("my-run", "finished", "world candy", "agent ppo", "seed 0", "abc1234def", "2.13.0", "4242", "cpu"):
        assert part in everything, part
    for part in ("gamma 0.995", "hidden [64, 32]", "size 6", "num_envs 64"):
        assert part in " ".join(page.words["config"].split()), part
    assert {a["class"] for a in page.all("div", "note")} == set(), "nothing is missing"
    assert page.all("img", "gif")[0]["src"].startswith("data:image/gif;base64,R0lGOD")


def test_learning_curve_lies_between_its_lines(tmp_path: Path) -> None:
    page = read(write_report(make_run(tmp_path / "run")))
    (series,) = page.hover()
    assert series["steps"] == [2000 * k for k in range(1, 101)]
    assert series["values"] == pytest.approx([1 + 5 * k / 100 for k in range(1, 101)], rel=1e-4)
    random, optimal = (float(page.all("line", kind)[0]["y1"]) for kind in ("random", "optimal"))
    scale = (random - optimal) / (7.5 - 1.25)  # pixels per unit of return
    assert series["y"] == pytest.approx([random - scale * (y - 1.25) for y in series["values"]], abs=0.11)
    chart = page.all("path", "curve")[0]
    points = [tuple(map(float, pair.split(","))) for pair in chart["d"][1:].split("L")]
    assert [x for x, _ in points] == series["x"] and all(a < b for (a, _), (b, _) in zip(points, points[1:], strict=False))
    assert "optimal 7.50" in page.words["curve"] and "random 1.25" in page.words["curve"]
    mark = page.all("circle", "mark")[0]
    assert float(mark["cy"]) == pytest.approx(random - scale * (6.5 - 1.25), abs=0.11)


def test_small_charts_show_every_metric(tmp_path: Path) -> None:
    page = read(write_report(make_run(tmp_path / "run")))
    words = page.words["learning"]
    for name in ("entropy", "KL divergence", "value loss", "my/own", "steps per second"):
        assert name in words, name
    assert len([a for _, a in page.elements if "data-hover" in a]) == 6
    assert page.hover(1)[0]["name"] == "value loss" and page.hover(1)[0]["values"][3] == 0.25


def test_histogram_counts_episodes(tmp_path: Path) -> None:
    page = read(write_report(make_run(tmp_path / "run")))
    bars = {kind: page.all("rect", kind) for kind in ("agent", "random")}
    heights = {kind: sorted(float(bar["height"]) for bar in found) for kind, found in bars.items()}
    assert len(heights["agent"]) == 2 and len(heights["random"]) == 3
    assert heights["agent"][1] / heights["agent"][0] == pytest.approx(3, rel=0.02), "75 episodes to 25"
    assert heights["random"][2] / heights["random"][0] == pytest.approx(2, rel=0.02)
    for part in ("agent 6.50", "random 1.25", "optimal 7.50"):
        assert part in page.words["returns"], part
    assert "agent: 75.0 % of episodes, return 6" in page.words["returns"]


def test_headline_uses_the_lines_of_the_evaluated_episodes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation |= {"random_exact": 1.5, "optimal": {"mean": 8.0, "meaning": "best"}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    page = read(write_report(folder))
    for part in ("random 1.50", "optimal 8", "random gets 18.8 %", "76.9 % of the way"):
        assert part in page.words["figures"], part
    assert "random 1.25" in page.words["curve"], "the curve keeps the yardstick of training"


def test_time_split_adds_up(tmp_path: Path) -> None:
    page = read(write_report(make_run(tmp_path / "run")))
    words = " ".join(page.words["time"].split())
    for part in ("world 10 % 5.0 s", "policy 20 % 10.0 s", "learning 50 % 25.0 s", "everything else 20 % 10.0 s"):
        assert part in words, part


def test_commands_reproduce_the_configuration(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "a b;rm", env={"id": "candy", "name": "x y", "odd": "12", "on": True})
    lines = read(write_report(folder)).words["reproduce"]
    assert "git checkout abc1234def" in lines and "gumdrop eval 'runs/a b;rm'" in lines
    (train,) = re.findall(r"gumdrop train .*?(?= gumdrop eval)", lines)
    words = shlex.split(train)
    assert words[:6] == ["gumdrop", "train", "--env", "candy", "--agent", "ppo"]
    values = {k: yaml.safe_load(v) for k, v in (word.split("=", 1) for word in words[6:])}
    assert values == {
        "num_envs": 64, "steps": 200_000, "seed": 0, "env.name": "x y", "env.odd": "12", "env.on": True,
        "agent.gamma": 0.995, "agent.hidden": [64, 32],
    }  # fmt: skip


def test_nothing_from_a_run_becomes_markup(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / EVIL.replace("/", "|"), env={"id": EVIL, EVIL: EVIL})
    summary = json.loads((folder / "summary.json").read_text())
    summary |= {"versions": {EVIL: EVIL}, "git_commit": EVIL, "device": EVIL, "status": EVIL}
    summary["yardstick"]["meaning"] = EVIL
    (folder / "summary.json").write_text(json.dumps(summary))
    with (folder / "metrics.jsonl").open("a") as metrics:
        metrics.writelines(json.dumps({"env_steps": 300_000 + k, EVIL: k, "return_mean": 6}) + "\n" for k in range(3))
    clean = read(write_report(make_run(tmp_path / "clean")))
    pages = [read(write_report(folder)), read(compare_chart([folder, folder], tmp_path / "c.html"))]
    for page in pages:
        assert_loads_nothing(page)
        assert len(page.all("script", "")) == len(clean.all("script", "")) == 1
        assert "<img src=https" not in page.html and "alert('x')" not in page.html
    assert "<script>alert('x')</script>" in pages[0].words["all"], "shown as text"
    assert len(pages[0].all("img", "")) == 1


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.jsonl", "timing.jsonl", "summary.json", "evaluation.json", "episode.gif"]
)
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "list", "nested"])
def test_any_file_may_be_missing_or_damaged(tmp_path: Path, name: str, damage: str) -> None:
    folder = make_run(tmp_path / "run", updates=5)
    contents = {"empty": b"", "garbage": b"\xff\x00{[<", "list": b"[1, 2]", "nested": b"[" * 100_000}
    (folder / name).unlink() if damage == "missing" else (folder / name).write_bytes(contents[damage])
    page = read(write_report(folder))
    assert_loads_nothing(page)
    gone = {
        "config.yaml": "The configuration is not known",
        "metrics.jsonl": "no curve to draw",
        "timing.jsonl": "kept no timing",
        "summary.json": "unfinished",
        "evaluation.json": "has not been evaluated",
        "episode.gif": "No animation was recorded",
    }
    assert gone[name] in page.words["all"]
    assert sum(words in page.words["all"] for words in gone.values()) == 1, "the other parts are there"
    compare_chart([folder], tmp_path / "c.html")


@pytest.mark.parametrize("strange", [math.nan, math.inf, None, "high", [], {}, True, 10**400, 1e300, -1e-300])
def test_strange_values_do_not_stop_it(tmp_path: Path, strange: Any) -> None:
    folder = make_run(tmp_path / "run", updates=4)
    (folder / "config.yaml").write_text(yaml.safe_dump({"env": strange, "agent": {"name": strange}, "steps": strange}))
    for name in ("summary", "evaluation"):
        data = json.loads((folder / f"{name}.json").read_text())
        (folder / f"{name}.json").write_text(json.dumps(dict.fromkeys(data, strange)))
    for name in ("metrics", "timing"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        rows += [dict.fromkeys(rows[0], strange)] * 3
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"env_steps": 1')
    page = read(write_report(folder))
    assert_loads_nothing(page)
    for tag, attributes in page.elements:
        for key in ("d", "x", "y", "x1", "y1", "y2", "cx", "cy", "width", "height", "style"):
            assert not re.search("nan|inf|none", attributes.get(key, ""), re.I), f"<{tag} {key}={attributes[key]}>"
    for chart in [a for _, a in page.elements if "data-hover" in a]:
        for series in json.loads(chart["data-hover"], parse_constant=lambda word: pytest.fail(word)):
            assert len(series["x"]) == len(series["values"])
    assert compare_chart([folder], tmp_path / "c.html").is_file()


def test_a_run_that_goes_on_shows_its_last_row(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", updates=50)
    summary = json.loads((folder / "summary.json").read_text()) | {"status": "running", "env_steps": 0, "seconds": 0.0}
    (folder / "summary.json").write_text(json.dumps(summary))
    page = read(write_report(folder))
    assert "100k" in page.words["figures"] and "25.0 s" in page.words["figures"]
    assert page.all("span", "unfinished") and "still going on" in page.words["all"]


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_unhappy_ends_are_said(tmp_path: Path, status: str) -> None:
    folder = make_run(tmp_path / "run", updates=3)
    (folder / "summary.json").write_text(json.dumps({"status": status}))
    page = read(write_report(folder))
    assert page.all("span", status) and any(status in note for note in [page.words["all"]])


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no run folder 'nowhere'"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(ReportError, match="not a run folder"):
        write_report(tmp_path)
    with pytest.raises(ReportError, match="at least one"):
        compare_chart([], tmp_path / "a.html")
    with pytest.raises(ReportError, match=r"\.html or \.png"):
        compare_chart([make_run(tmp_path / "run", 2)], tmp_path / "a.pdf")


def test_compare_overlays_runs(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / g / "run", updates, seed) for g, updates, seed in (("a", 100, 0), ("b", 50, 1))]
    folders.append(make_run(tmp_path / "other", 20, 2))
    page = read(compare_chart(folders, tmp_path / "out" / "c.html"))
    assert_loads_nothing(page)
    series = page.hover()
    assert [s["name"] for s in series] == ["a/run", "b/run", "other"] and [len(s["x"]) for s in series] == [100, 50, 20]
    for name in ("a/run", "b/run", "other", "return per episode", "optimal 7.50", "random 1.25"):
        assert name in page.words["curve"], name
    assert "6.50 [6.33, 6.67]" in page.words["runs"] and "86.7 %" in page.words["runs"]


def test_compare_draws_lines_only_where_they_agree(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, 5) for name in "ab"]
    folders.append(make_run(tmp_path / "maze", 5, env={"id": "maze"}))
    assert read(compare_chart(folders[:2], tmp_path / "c.html")).all("line", "level")
    page = read(compare_chart(folders, tmp_path / "c.html"))
    assert not page.all("line", "level") and "worlds differ" in page.words["all"]
    summary = json.loads((folders[1] / "summary.json").read_text())
    summary["yardstick"]["optimal"] = 7.55  # other episodes, the same world: within 2 %
    (folders[1] / "summary.json").write_text(json.dumps(summary))
    assert read(compare_chart(folders[:2], tmp_path / "c.html")).all("line", "level")
    summary["yardstick"]["optimal"] = 9.0
    (folders[1] / "summary.json").write_text(json.dumps(summary))
    assert not read(compare_chart(folders[:2], tmp_path / "c.html")).all("line", "level")


def test_compare_png(tmp_path: Path) -> None:
    from PIL import Image

    folders = [make_run(tmp_path / name, 30) for name in ("$x_{1", "_hidden")]
    path = compare_chart(folders, tmp_path / "c.png")
    with Image.open(path) as image:
        assert image.size == (1350, 750)
        colors = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (colors == (0xD5, 0x5E, 0x00)).all(axis=1).any(), "the second run's colour is there"


def test_long_runs_stay_small(tmp_path: Path) -> None:
    page = read(write_report(make_run(tmp_path / "run", updates=5000)))
    assert len(page.html) < 1_000_000
    (series,) = page.hover()
    assert len(series["x"]) == 700 and series["values"] == pytest.approx(sorted(series["values"]))


@pytest.mark.parametrize("low,high", [(0, 1), (-3.2, 7.9), (0, 0), (5, 5), (1e-8, 2e-8), (-1e9, 1e9), (0.999, 1.001)])
def test_ticks_enclose_and_are_round(low: float, high: float) -> None:
    ticks = charts.round_ticks(low, high, 5)
    assert 2 <= len(ticks) <= 8 and ticks[0] <= low + 1e-12 and ticks[-1] >= high - 1e-12
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


def test_smoothing_neither_lags_nor_bends_a_line() -> None:
    line = [3.0 + 0.5 * k for k in range(200)]
    assert charts.smoothed(line) == pytest.approx(line)
    noisy = [(-1.0) ** k for k in range(400)]
    assert max(abs(y) for y in charts.smoothed(noisy)[20:-20]) < 0.1


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (charts.show(6.5), "6.50"), (charts.show(7.0), "7"), (charts.show(0.00048), "0.00048"),
        (charts.show(12345.6), "12,346"), (charts.si(1_250_000), "1.25M"), (charts.si(999_999), "1M"),
        (charts.si(12.0), "12"), (charts.show(None), "-"),
        (charts.clock(50), "50.0 s"), (charts.clock(61), "1 min 01 s"), (charts.clock(3700), "1 h 01 min"),
        (charts.percent(0.8667), "86.7 %"),
    ],
)  # fmt: skip
def test_figures_read_well(call: str, wanted: str) -> None:
    assert call == wanted
