"""The live view: right figures in lines and panel, quiet stdout, and nothing that it is fed can stop training."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import pytest

from gumdrop.experiments.live.bars import sparkline
from gumdrop.experiments.live.run_view import Live


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def rows(update: int, seconds: float = 1.0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Update number `update` of a run that does 1,000 steps a second."""
    steps = round(1000 * seconds * update)
    metrics = {
        "updates": update,
        "env_steps": steps,
        "episodes": 10,
        "return_mean": 2.0 + update,
        "entropy": 1.25,
        "kl": 0.0125,
        "loss/value": 0.5,
        "learning_rate": 3e-4,
    }
    timing = {"updates": update, "env_steps": steps, "seconds": seconds * update, "steps_per_second": 1000.0}
    return metrics, timing | {"world_s": 0.2 * seconds, "policy_s": 0.3 * seconds, "learn_s": 0.5 * seconds}


def shown(live: Live, width: int = 100) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(live.panel(width))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_plain_lines_come_first_every_few_seconds_and_last() -> None:
    clock, out = Clock(), io.StringIO()
    with Live(100_000, "candy-ppo", (2.0, 12.0, "optimum"), stream=out, clock=clock) as live:
        assert live.plain, "no terminal: lines"
        for update in range(1, 13):
            clock.now += 1.0
            live.update(*rows(update))
    lines = out.getvalue().splitlines()
    assert lines[0] == "candy-ppo: 100,000 steps"
    assert [re.search(r"([\d,]+) steps \(", line)[1] for line in lines[1:]] == ["1,000", "6,000", "11,000", "12,000"]  # type: ignore[index]
    last = lines[-1]
    for part in (
        "(12 %)",
        "1,000 steps/s",
        "return 14.00",
        "120 % of the way",
        "entropy 1.250",
        "KL 0.0125",
        "1:28 left",
    ):
        assert part in last, part


def test_the_last_line_is_not_repeated() -> None:
    clock, out = Clock(), io.StringIO()
    with Live(1000, "x", stream=out, clock=clock) as live:
        live.update(*rows(1))
        live.note("checkpoint saved")
    assert out.getvalue().splitlines()[1:] == [live.line(), "checkpoint saved"]


def test_panel_shows_the_figures() -> None:
    clock = Clock()
    live = Live(10_000, "candy-ppo", (2.0, 12.0, "optimum"), clock=clock)
    for update in range(1, 6):
        live.update(*rows(update))
    words = shown(live)
    for part in (
        "candy-ppo", "50 %", "5,000 / 10,000", "1,000 steps/s", "elapsed 5.0 s", "left 5.0 s", "world 20 %", "entropy",
        "policy 30 %", "learning 50 %", "7.000", "random 2.00", "12.00 optimal", "1.250", "0.0125", "3.00e-04",
    ):  # fmt: skip
        assert part in words, part
    assert re.search(r"12\.00 optimal +50 %", words), "7 is half way between 2 and 12"
    bar = re.search("├(.*)┤", words)
    assert bar and abs(bar[1].index("●") - (len(bar[1]) - 1) / 2) <= 0.5
    assert re.search(r"episodes +50\b", words)
    assert max(map(len, words.splitlines())) <= 100 and max(map(len, shown(live, 60).splitlines())) <= 60


def test_time_that_no_part_owns_is_shown_as_other() -> None:
    live = Live(100_000, "x", clock=Clock())
    for update in range(1, 20):
        metrics, timing = rows(update)
        live.update(metrics, timing | {"world_s": 0.1, "policy_s": 0.1, "learn_s": 0.2})
    split = {name: share for name, share, _ in live.split()}
    assert split == pytest.approx({"world": 0.1, "policy": 0.1, "learning": 0.2, "other": 0.6})


def test_elapsed_counts_on_after_a_resume_and_left_follows_recent_speed() -> None:
    clock = Clock()
    live = Live(10_000, "x", clock=clock)
    live.update(*rows(4, 2.0))
    clock.now += 3.0
    assert live.elapsed == pytest.approx(11.0)
    live.update({"env_steps": 9000}, {"seconds": 8.5, "env_steps": 9000})
    assert live.speed == pytest.approx(2000) and live.left == pytest.approx(0.5)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("metrics", "timing"),
    [
        ({}, {}),
        ({"return_mean": math.nan, "env_steps": math.inf, "kl": -math.inf}, {"seconds": math.nan}),
        ({"return_mean": None, "entropy": "high", "env_steps": "many"}, {"world_s": None, "seconds": []}),
        ({"env_steps": 10**400, "return_mean": 1e308}, {"seconds": 0.0, "steps_per_second": 0.0}),
        (None, 7),
    ],
)
def test_nothing_it_is_fed_stops_training(metrics: Any, timing: Any, plain: bool) -> None:
    out = Terminal()
    with Live(0, "[bold]x[/nonsense]", (math.nan, 1.0, ""), plain=plain, stream=out, every=0, clock=Clock()) as live:
        live.update(metrics, timing)
        live.update(*rows(3))
        live.update(metrics, timing)
        live.note("[/] not markup")
        assert "[bold]x[/nonsense]" in shown(live)
    assert "[/] not markup" in out.getvalue() and "Traceback" not in out.getvalue()


def test_a_closed_stream_does_not_stop_training() -> None:
    out = io.StringIO()
    with Live(1000, "x", stream=out) as live:
        out.close()
        live.update(*rows(1))
        live.note("still here")
        assert live.line()  # and it still knows what it would say


def test_errors_pass_through() -> None:
    with pytest.raises(KeyboardInterrupt), Live(1000, "x", stream=io.StringIO()):
        raise KeyboardInterrupt


def test_terminal_gets_the_panel_on_stderr_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with Live(10_000, "candy-ppo", stream=out) as live:
        assert live.plain is False
        live.update(*rows(5))
        print('{"json": 1}')
    assert "5,000 / 10,000" in out.getvalue()
    assert capsys.readouterr().out == '{"json": 1}\n'
    monkeypatch.setenv("TERM", "dumb")
    with Live(10_000, "candy-ppo", stream=Terminal()) as live:
        assert live.plain is True


def test_default_stream_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Live(1000, "x", plain=True) as live:
        live.update(*rows(1))
    printed = capsys.readouterr()
    assert printed.out == "" and "1,000 steps" in printed.err


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7], 2) == "▁█"
    assert sparkline([3.0, 3.0], 5) == "▄▄"


def test_a_nan_leaves_the_last_good_figure() -> None:
    live = Live(10_000, "x", (2.0, 12.0, "optimum"), clock=Clock())
    live.update(*rows(3))
    live.update({"return_mean": math.nan, "env_steps": math.inf, "kl": None}, {"seconds": math.nan})
    assert "return 5.00 (30 % of the way" in live.line() and "3,000 steps (30 %)" in live.line()
    assert "5.000" in shown(live) and "0.0125" in shown(live)
