"""A leaderboard: who plays, who is skipped and why, what is trained again, the order, and one budget."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gumdrop.agents import protocol as core
from gumdrop.agents import registry
from gumdrop.agents.random import Random
from gumdrop.configs.loader import dump_group
from gumdrop.configs.schema import RunConfig
from gumdrop.experiments.run.signals import Interrupted
from gumdrop.experiments.study import groups
from gumdrop.experiments.study.leaderboard import entrants, leaderboard, overlaps

BASE = RunConfig(env={"id": "bandit"}, num_envs=4, steps=1000, eval_episodes=10)
SCORES = {"random": [2.0, 2.1, 2.2, 2.3, 2.4], "good": [5.0, 6, 7, 8, 9], "better": [6.0, 7, 8, 9, 10]}


class Picky(Random):
    def __init__(self, config: Any, spaces: Any, seed: int, threads: int = 1) -> None:
        raise ValueError("agent picky: it needs pixels: take a world that shows them")


class Failing(Random):
    def __init__(self, config: Any, spaces: Any, seed: int, threads: int = 1) -> None:
        raise KeyError("a bug\nin two lines")


class Slow(Random):
    def __init__(self, config: Any, spaces: Any, seed: int, threads: int = 1) -> None:
        super().__init__(config, spaces, seed, threads)
        self.num_steps = 10_000


class Good(Random):
    class Config(core.AgentConfig):
        skill: int = 1


class Better(Good):
    pass


class Shy(Random):
    in_leaderboard = False


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.agents()
    monkeypatch.setattr(
        registry, "_AGENTS", {"random": Random, "picky": Picky, "broken": Failing, "slow": Slow, "good": Good, "shy": Shy}
    )
    monkeypatch.setitem(registry._AGENTS, "better", Better)


class Trainer:
    """Stands for `train_group`: leaves what training and evaluation would, and notes whom it was called for."""

    def __init__(self) -> None:
        self.called: list[tuple[str, bool]] = []
        self.failing: dict[str, BaseException] = {}

    def __call__(self, config: RunConfig, seeds: Sequence[int], folder: Path, live: Any, resume: bool) -> dict[str, Any]:
        self.called.append((config.agent_name, resume))
        folder = Path(folder)
        folder.mkdir(exist_ok=True)
        (folder / "group.yaml").write_text(dump_group(config.model_copy(update={"threads": 1}), seeds))
        if config.agent_name in self.failing:
            raise self.failing.pop(config.agent_name)
        for seed, score in zip(seeds, SCORES[config.agent_name], strict=True):
            run = folder / f"seed-{seed}"
            run.mkdir(exist_ok=True)
            (run / "summary.json").write_text(json.dumps({"status": "finished", "env_steps": 992, "seconds": 0.5}))
            evaluation = {"episodes": 10, "seed": 1, "agent": {"mean": score}, "share_of_optimal": score / 10}
            (run / "evaluation.json").write_text(json.dumps(evaluation))
        return {}


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    found = Trainer()
    monkeypatch.setattr(groups, "train_group", found)
    return found


def test_who_can_play(tmp_path: Path) -> None:
    configs, skipped = entrants(BASE, None, {"good": {"skill": 3}})
    assert list(configs) == ["better", "good", "random"]
    assert configs["good"].agent == {"name": "good", "skill": 3} and configs["better"].agent == {"name": "better"}
    assert skipped == {
        "picky": "it needs pixels: take a world that shows them",
        "broken": "'a bug\\nin two lines'",
        "slow": "one update takes 40,000 steps, more than steps=1,000",
        "shy": "it takes part when it is named",
    }
    assert "shy" in entrants(BASE, ["shy"], {})[0]


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["picky"], {}, "needs pixels"),
        (["slow", "good"], {}, "one update takes 40,000"),
        (["goood"], {}, "did you mean good"),
        (["good"], {"good": {"skil": 1}}, "did you mean skill"),
        (["good"], {"better": {"skill": 1}}, "does not take part"),
        (None, {"picky": {}}, "needs pixels"),
    ],
)
def test_who_is_named_must_be_able_to(
    names: list[str] | None, options: dict[str, Any], words: str, tmp_path: Path, trainer: Trainer
) -> None:
    with pytest.raises(ValueError, match=words):
        leaderboard(BASE, range(5), tmp_path / "board", names, options)
    assert list(tmp_path.iterdir()) == [] and trainer.called == []


def test_ranks_and_overlaps(tmp_path: Path, trainer: Trainer) -> None:
    said: list[str] = []
    document, ranked = leaderboard(BASE, range(5), tmp_path / "board", say=said.append)
    rows = document["algorithms"]
    assert [(row["rank"], row["name"], row["overlaps_best"]) for row in rows] == [
        (1, "better", True), (2, "good", True), (3, "random", False)
    ]  # fmt: skip
    assert [c.name for c in ranked] == ["better", "good", "random"] and rows[0]["iqm"]["value"] == 8
    assert document["seeds"] == [0, 1, 2, 3, 4] and document["steps"] == 1000 and document["failed"] == {}
    assert any(line.startswith("skipped picky: it needs pixels") for line in said) and "2 of 3: good" in said
    assert json.loads((tmp_path / "board" / "leaderboard.json").read_text())["algorithms"] == rows


def test_what_is_finished_is_not_trained_again(tmp_path: Path, trainer: Trainer) -> None:
    first = leaderboard(BASE, range(5), tmp_path / "board", ["good", "random"], say=str).document
    (tmp_path / "board" / "good" / "seed-3" / "evaluation.json").unlink()
    again = leaderboard(BASE, range(5), tmp_path / "board", ["good", "random", "better"], say=str).document
    assert trainer.called == [("good", False), ("random", False), ("good", True), ("better", False)]
    assert again["algorithms"][1]["scores"] == first["algorithms"][0]["scores"] == SCORES["good"]


@pytest.mark.parametrize(
    ("changes", "seeds", "options", "words"),
    [
        ({"steps": 2000}, 5, {}, "has steps 1,000, not 2,000"),
        ({"num_envs": 2}, 5, {}, "has num_envs 4, not 2"),
        ({"eval_episodes": 20}, 5, {}, "has eval_episodes 10, not 20"),
        ({"env": {"id": "bandit", "arms": 3}}, 5, {}, "has env id=bandit, not id=bandit arms=3"),
        ({}, 4, {}, "has seeds 0 to 4, not 0 to 3"),
        ({}, 5, {"good": {"skill": 2}}, "has agent name=good, not name=good skill=2"),
    ],
)
def test_one_board_one_budget(
    changes: dict[str, Any], seeds: int, options: dict[str, Any], words: str, tmp_path: Path, trainer: Trainer
) -> None:
    leaderboard(BASE, range(5), tmp_path / "board", ["good"], say=str)
    with pytest.raises(ValueError, match=words):
        leaderboard(BASE.model_copy(update=changes), range(seeds), tmp_path / "board", ["random", "good"], options, say=str)
    assert len(trainer.called) == 1, "refused before anything was trained"


def test_a_failure_costs_one_agent(tmp_path: Path, trainer: Trainer) -> None:
    trainer.failing = {"good": ValueError("a loss is infinite"), "better": KeyError("x")}
    document = leaderboard(BASE, range(5), tmp_path / "board", say=str).document
    assert document["failed"] == {"good": "a loss is infinite", "better": "KeyError: 'x'"}
    assert [row["name"] for row in document["algorithms"]] == ["random"]
    document = leaderboard(BASE, range(5), tmp_path / "board", say=str).document
    assert document["failed"] == {} and len(document["algorithms"]) == 3
    trainer.failing = {"good": ValueError("no")}
    assert leaderboard(BASE, range(5), tmp_path / "alone", ["good"], say=str).document["algorithms"] == []


def test_a_signal_stops_the_board(tmp_path: Path, trainer: Trainer) -> None:
    trainer.failing = {"good": Interrupted(signal.SIGINT)}
    with pytest.raises(Interrupted):
        leaderboard(BASE, range(5), tmp_path / "board", say=str)
    assert trainer.called == [("better", False), ("good", False)]
    assert len(leaderboard(BASE, range(5), tmp_path / "board", say=str).document["algorithms"]) == 3
    assert trainer.called[2:] == [("good", True), ("random", False)]


def test_folders_that_are_something_else(tmp_path: Path, trainer: Trainer) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    with pytest.raises(ValueError, match="a run of its own"):
        leaderboard(BASE, range(5), tmp_path / "run", ["random"])
    (tmp_path / "board" / "random").mkdir(parents=True)
    (tmp_path / "board" / "random" / "group.yaml").write_text("steps: [")
    with pytest.raises(ValueError, match=r"group\.yaml"):
        leaderboard(BASE, range(5), tmp_path / "board", ["random"])


def test_one_seed_overlaps_nothing(tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, scores in SCORES.items():
        monkeypatch.setitem(SCORES, name, scores[:1])
    document = leaderboard(BASE, range(1), tmp_path / "board", say=str).document
    assert [row["overlaps_best"] for row in document["algorithms"]] == [None, None, None]
    assert "one training seed: no interval over seeds" in document["notes"][0]


@pytest.mark.parametrize(("ci", "wanted"), [([1, 2], False), ([1, 3], True), ([4, 5], True), ([6, 9], False), (None, None)])
def test_overlap_by_hand(ci: list[float] | None, wanted: bool | None) -> None:
    assert overlaps({"iqm": {"ci95": ci}}, {"iqm": {"ci95": [3, 5]}}) is wanted
