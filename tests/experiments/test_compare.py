"""Groups of seeds as algorithms: figures by hand, what is left out is said, what cannot be compared is refused, charts."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gumdrop.configs.loader import dump_group
from gumdrop.configs.schema import RunConfig
from gumdrop.experiments.live.lines import YardstickLines
from gumdrop.experiments.report import compare_page
from gumdrop.experiments.report.charts import Bar, Series, chart, intervals
from gumdrop.experiments.report.compare_page import draw
from gumdrop.experiments.report.results_page import headline, write_page
from gumdrop.experiments.study.compare import compare_results, result_of, results


def make_group(
    folder: Path, scores: Sequence[float | None], env: dict[str, Any] | None = None, steps: int = 1000, agent: str = "ppo"
) -> Path:
    """A group as training and evaluation leave it; None is a seed that failed. Optimum 10, random 2; returns rise."""
    folder.mkdir(parents=True)
    config = RunConfig(env=env or {"id": "candy", "size": 6}, agent={"name": agent}, steps=steps, threads=1)
    (folder / "group.yaml").write_text(dump_group(config, range(len(scores))))
    for seed, score in enumerate(scores):
        run = folder / f"seed-{seed}"
        run.mkdir()
        (run / "config.yaml").write_text(yaml.safe_dump(config.model_copy(update={"seed": seed}).model_dump(mode="json")))
        summary = {"status": "finished" if score is not None else "failed", "env_steps": steps, "seconds": 1.0 + seed}
        (run / "summary.json").write_text(json.dumps(summary))
        if score is not None:
            document = {
                "episodes": 50, "seed": 9, "agent": {"mean": score, "ci95": [score, score]}, "random": {"mean": 2.5},
                "random_exact": 2.0, "optimal": {"mean": 10.0, "meaning": "optimum"}, "share_of_optimal": score / 10,
            }  # fmt: skip
            (run / "evaluation.json").write_text(json.dumps(document))
            rows = [{"env_steps": x, "return_mean": 2 + (score - 2) * x / steps} for x in range(100, steps + 1, 100)]
            (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_figures_by_hand(tmp_path: Path) -> None:
    a = make_group(tmp_path / "a", [1.0, 2, 3, 4, 90])
    b = make_group(tmp_path / "b", [5.0, 6, 7, 8, 9, 3])
    judged = compare_results(results([a, b]))
    first, second = judged["algorithms"]
    assert (first["iqm"]["value"], second["iqm"]["value"]) == (3.0, 6.5)
    assert first["mean"]["value"] == 20 and first["scores"] == [1, 2, 3, 4, 90]
    assert first["improvement"] is first["difference"] is None
    assert second["improvement"]["value"] == pytest.approx((4 * 6 - 1 - 0.5) / 30)  # 3 beats 1, 2 and ties with 3; 90 beats all
    assert second["difference"]["value"] == 3.5
    assert second["share_of_optimal"]["value"] == pytest.approx(0.65) and first["seconds"] == 3.0
    low, high = second["iqm"]["ci95"]
    assert 3 <= low < 6.5 < high <= 9 and judged["notes"] == []
    assert compare_results(results([a, b])) == judged and compare_results(results([a, b]), seed=1) != judged


def test_what_a_reader_must_know_is_said(tmp_path: Path) -> None:
    failed = make_group(tmp_path / "failed", [5.0, None, 6, 7, 8, 9])
    short = make_group(tmp_path / "short", [5.0, 6, 7], steps=500)
    judged = compare_results(results([failed, short, short / "seed-1"]))
    assert judged["algorithms"][0]["left_out"] == [{"seed": 1, "why": "failed"}]
    assert [len(row["seeds"]) for row in judged["algorithms"]] == [5, 3, 1]
    said = "\n".join(judged["notes"])
    for words in (
        "failed: 1 of 6 seeds left out (seed 1 failed)", "short: 3 training seeds: intervals of fewer than 5",
        "seed-1: one training seed: no interval over seeds", "budgets differ: failed 1,000 steps, short 500 steps",
    ):  # fmt: skip
        assert words in said
    assert judged["algorithms"][2]["iqm"] == {"value": 6.0, "ci95": None}
    change(short / "seed-0" / "evaluation.json", episodes=5)
    assert "not all seeds were evaluated on the same episodes" in "\n".join(compare_results(results([failed, short]))["notes"])


def test_no_share_without_an_optimum(tmp_path: Path) -> None:
    group = make_group(tmp_path / "a", [5.0, 6, 7])
    change(group / "seed-1" / "evaluation.json", share_of_optimal=None, optimal=None)
    (row,) = compare_results([result_of(group)])["algorithms"]
    assert row["share_of_optimal"] is None and row["iqm"]["value"] == 6
    lines = compare_page.common_lines([result_of(group)])
    assert lines == YardstickLines(2.0, None, "optimum")


def test_names_differ(tmp_path: Path) -> None:
    groups = [make_group(tmp_path / g / "same", [5.0, 6]) for g in "ab"]
    assert [c.name for c in results([*groups, groups[0]])] == ["a/same (1)", "b/same", "a/same (3)"]


def test_one_world_or_none(tmp_path: Path) -> None:
    """A default that is written out is the same world; another option, another id and a world that is gone are not."""
    a, b = make_group(tmp_path / "a", [1.0], {"id": "bandit"}), make_group(tmp_path / "b", [1.0], {"id": "bandit", "arms": 10})
    default = result_of(b)
    arms = {"id": "bandit", "arms": 3}
    c, gone = make_group(tmp_path / "c", [1.0], arms), make_group(tmp_path / "gone", [1.0], {"id": "atlantis"})
    from gumdrop.envs.registry import make_world

    if make_world("bandit", {}).config == make_world("bandit", {"arms": 10}).config:
        assert [x.name for x in results([a, b])] == ["a", default.name]
    for other, words in ((c, r"bandit, .*c in bandit\(arms=3\)"), (gone, "atlantis")):
        with pytest.raises(ValueError, match=words):
            results([a, other])
    assert len(results([gone, gone])) == 2


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("evaluation.json", None, "is not evaluated: `gumdrop eval"),
        ("evaluation.json", "{", "damaged, not JSON"),
        ("evaluation.json", "[1]", "not a JSON object"),
        ("evaluation.json", "[" * 100_000, "damaged, not JSON"),
        ("evaluation.json", '{"agent": {"mean": NaN}}', "no finite number"),
        ("evaluation.json", '{"agent": {"mean": 1e999}}', "no finite number"),
        ("evaluation.json", '{"agent": {"mean": true}}', "no finite number"),
        ("evaluation.json", '{"agent": [1]}', "no finite number"),
        ("summary.json", "{", "damaged, not JSON"),
        ("summary.json", b"\xff\xfe", "damaged, not text"),
    ],
)
def test_damage_costs_a_line(file: str, text: str | bytes | None, words: str, tmp_path: Path) -> None:
    group = make_group(tmp_path / "a", [5.0, 6])
    path = group / "seed-1" / file
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=words) as caught:
        result_of(group)
    assert "\n" not in str(caught.value)


def test_a_group_of_which_nothing_is_finished(tmp_path: Path) -> None:
    group = make_group(tmp_path / "a", [None, None])
    with pytest.raises(ValueError, match="none of its seeds is finished: `gumdrop resume"):
        result_of(group)
    (group / "seed-0" / "summary.json").unlink()
    with pytest.raises(ValueError, match="none of its seeds"):
        result_of(group)


def test_curves_with_bands_between_the_lines(tmp_path: Path) -> None:
    groups = [make_group(tmp_path / "a", [4.0, 5, 6, 7, 8]), make_group(tmp_path / "b", [9.0, 9.2, 9.4, 9.6, 9.8])]
    found = results(groups)
    page = draw(found, compare_results(found), tmp_path / "c.html").read_text()
    assert not re.search(r"""(src|href)=["']?(?!data:)""", page), "it loads nothing"
    curves, profiles = (json.loads(html.unescape(data)) for data in re.findall(r'data-hover="([^"]*)"', page))
    assert [s["name"] for s in curves] == [s["name"] for s in profiles] == ["a", "b"]
    assert curves[0]["values"][-1] == pytest.approx(6) and curves[1]["values"][-1] == pytest.approx(9.4, abs=0.01)
    assert page.count('<path class="band') == 4 and page.count('<line class="ends-line"') == 2
    assert page.count(">optimal 10<") == page.count(">random 2<") == 2
    assert "<td>9.40 [9, 9.80]</td><td>1 [0.64, 1]</td><td>94.0 %</td>" in page


def test_png_has_every_colour(tmp_path: Path) -> None:
    from PIL import Image

    found = results([make_group(tmp_path / name, [4.0, 5, 6]) for name in ("$x_{1", "_hidden")])
    with Image.open(draw(found, compare_results(found), tmp_path / "c.png")) as image:
        colors = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (colors == color).all(axis=1).any()


def test_charts_of_odd_seeds(tmp_path: Path) -> None:
    """One seed, equal scores, NaN in metrics, no metrics: each is drawn as far as it goes, and what is missing is said."""
    one, equal = make_group(tmp_path / "one", [5.0]), make_group(tmp_path / "equal", [5.0, 5, 5])
    (equal / "seed-0" / "metrics.jsonl").write_text(
        '{"env_steps": 10, "return_mean": NaN}\n{"env_steps": 20, "return_mean": 3}\n'
    )
    (equal / "seed-1" / "metrics.jsonl").unlink()
    for suffix in ("html", "png"):
        found = results([one, equal])
        text = draw(found, compare_results(found), tmp_path / f"c.{suffix}").read_bytes()
        if suffix == "html":
            assert b"equal: 1 seeds have no curve" in text and b"no curve: curves: they share no env_steps" in text
    (one / "seed-0" / "metrics.jsonl").write_text("")
    found = results([one, one])
    assert b"no curve to draw" in draw(found, compare_results(found), tmp_path / "d.html").read_bytes()
    draw(found, compare_results(found), tmp_path / "d.png")


def test_geometry_of_bands_and_intervals() -> None:
    drawn = chart([Series("a", 0, [0.0, 10.0], [1.0, 2.0], [0.0, 1.0], [2.0, 9.0])], None)
    points = [tuple(map(float, point.split(","))) for point in drawn["series"][0]["band"].strip("MZ").split("L")]
    (left, high), (right, top), (_, bottom), (_, low) = points  # along the upper edge, back along the lower one
    assert [x for x, _ in points] == [left, right, right, left] and left < right and top < high < bottom < low
    assert drawn["y_ticks"][-1]["label"] == "10", "the band has room"
    negative = chart([Series("a", 0, [-5.0, 5.0], [0.0, 1.0])], None, x_name="score", x_from=None)
    assert negative["hover"][0]["x"] == [negative["left"], negative["right"]] and negative["x_name"] == "score"
    bars = intervals([Bar("a", 0, 5.0, [4.0, 6.0]), Bar("b" * 99, 9, 2.0, None)], YardstickLines(0.0, 10.0, ""))
    a, b = bars["rows"]
    assert a["ends"][0] < a["x"] < a["ends"][1] and b["ends"] == [] and b["x"] < a["x"] and len(b["name"]) == 34
    assert bars["lines"][0]["x"] == bars["left"] and bars["lines"][1]["x"] == bars["right"]


# ---- the page over docs/results ----


def test_results_page(tmp_path: Path) -> None:
    made = {"git_commit": "0123456789abcdef+", "device": "a | b", "versions": {}}
    with_headline = {"headline": [["share", 0.98765], ["interval", [1, 2]], ["who", "Dyna-Q"]], "seeds": [1, 2, 3], "x": 5}
    (tmp_path / "a.json").write_text(json.dumps(with_headline | made))
    runs = [{"seed": k, "share_of_optimal": 0.9 + k / 100, "mean": 5} for k in range(3)]
    (tmp_path / "b.json").write_text(json.dumps({"runs": runs, "episodes": 7}))
    (tmp_path / "c.json").write_text("{")
    (tmp_path / "d.json").write_text("{}")
    rows = {line.split("](")[0]: line for line in write_page(tmp_path).read_text().splitlines() if line.startswith("| [")}
    commit, device = "0123456+", "a \\| b"
    assert rows["| [a"] == f"| [a](a.json) | share: 0.9877; interval: 1 to 2; who: Dyna-Q | 3 | {commit} | {device} |"
    assert rows["| [b"] == "| [b](b.json) | share of optimal: 0.91 (0.9 to 0.92) | 3 | - | - |"
    assert "damaged" in rows["| [c"] and rows["| [d"] == "| [d](d.json) | - | - | - | - |"


def test_results_page_is_up_to_date() -> None:
    folder = Path(__file__).parents[2] / "docs" / "results"
    names = {path.name for path in folder.glob("*.json")}
    page = (folder / "README.md").read_text()
    assert names and all(f"]({name})" in page for name in names)
    for path in folder.glob("*.json"):
        assert headline(json.loads(path.read_text())), path.name
