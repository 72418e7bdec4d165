"""The command line: what it prints, where, with which exit status, and how soon."""

from __future__ import annotations

import inspect
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.experiments.run.new_folder import new_folder
from gumdrop.scripts import cli, common, errors, play
from gumdrop.scripts.cli import main

COMMAND = [sys.executable, "-m", "gumdrop.scripts.cli"]
VERBS = [
    [], ["train"], ["resume"], ["eval"], ["rollout"], ["report"], ["export"], ["compare"], ["leaderboard"], ["ablate"],
    ["doctor"], ["env"],
    ["env", "list"], ["env", "show"], ["env", "check"], ["env", "solve"], ["env", "play"], ["agent"], ["agent", "list"],
    ["agent", "show"], ["bench"], ["bench", "env"], ["bench", "train"],
]  # fmt: skip
RANDOM = ["train", "--env", "bandit", "--agent", "random", "steps=256", "num_envs=4", "--no-live"]


def run(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *argv], capture_output=True, text=True, timeout=120, **options)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def document(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    """What a --json command prints; anything beside the one document fails the parser."""
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_help_has_a_purpose_and_an_example(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb, "--help"]) == 0
    out, err = capsys.readouterr()
    text = " ".join(out.split())
    assert err == "" and "Usage: gumdrop" in text and "Example: gumdrop" in text
    assert re.search(r"Usage: gumdrop.*? [A-Z][a-z]+ [^.]*\.", text)


def test_every_command_is_tested_above() -> None:
    assert {*cli.GROUPS, *(verb.words for verb in cli.VERBS)} == {" ".join(verb) for verb in VERBS if verb}


@pytest.mark.parametrize("verb", cli.VERBS, ids=lambda verb: verb.words)
def test_the_list_of_commands_says_what_each_says_itself(verb: Any) -> None:
    """`gumdrop --help` imports no command, so it has their first words by heart."""
    text = " ".join(inspect.getdoc(verb.function).split())  # type: ignore[union-attr]
    assert text.startswith(verb.purpose.rstrip("."))


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_the_example_in_each_help_is_understood(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main([*verb, "--help"])
    found = re.search(r"Example: gumdrop (.*)", " ".join(capsys.readouterr().out.split()))
    assert found
    words = found[1].split()
    assert words[: len(verb)] == verb
    command: Any = cli.command()
    context = command.make_context("gumdrop", [], resilient_parsing=True)
    while hasattr(command, "list_commands") and words and words[0] in command.list_commands(context):
        command = command.get_command(context, words.pop(0))
    command.make_context("gumdrop", words)  # parses, runs nothing; raises for words that it does not know


def test_without_words_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: gumdrop" in capsys.readouterr().out
    assert main(["env"]) == 0
    assert "play" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_help_imports_nothing_heavy() -> None:
    """What would make it slow, rather than how slow it is: time depends on who else works here."""
    code = "import sys, gumdrop.scripts.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert not {"numpy", "pydantic", "yaml", "torch", "numba", "gymnasium", "rich"} & set(loaded)


def complete(line: str, cwd: Path) -> list[str]:
    """What bash is told when Tab is pressed behind `line`."""
    words = {"_GUMDROP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    return subprocess.run(COMMAND, capture_output=True, text=True, cwd=cwd, env={**os.environ, **words}).stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("gumdrop le", ["leaderboard"]),
        ("gumdrop env so", ["solve"]),
        ("gumdrop train cartpole-", ["cartpole-dqn", "cartpole-fast", "cartpole-ppo"]),
        ("gumdrop train --env froz", ["frozenlake", "frozenlake8"]),
        ("gumdrop train --agent policy-", ["policy-gradient", "policy-iteration"]),
        ("gumdrop train --agent sb3-t", ["sb3-td3", "sb3-tqc", "sb3-trpo"]),
        ("gumdrop env show dark", ["dark-room", "dark-room-9"]),
        ("gumdrop resume mi", ["mine"]),
        ("gumdrop eval many/s", ["many/seed-1"]),
        ("gumdrop eval --dir others ot", ["other"]),
        ("gumdrop agent show min", ["mine"]),
        ("gumdrop compare mine m", ["many", "mine"]),
        ("gumdrop train env.s", []),
    ],
)
def test_the_shell_completes_names(line: str, names: list[str], tmp_path: Path) -> None:
    for run in ("runs/mine", "runs/many/seed-1", "others/other"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "config.yaml").write_text("")
    (tmp_path / "runs" / "many" / "group.yaml").write_text("")
    assert complete(line, tmp_path) == names


def test_completion_can_be_shown_and_installed(tmp_path: Path) -> None:
    shown = run("--show-completion", "bash")
    assert shown.returncode == 0 and "_GUMDROP_COMPLETE=complete_bash" in shown.stdout
    installed = run("--install-completion", "bash", env={**os.environ, "HOME": str(tmp_path)})
    assert installed.returncode == 0 and "gumdrop.sh" in (tmp_path / ".bashrc").read_text(), installed


def test_completing_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from gumdrop.scripts import complete as c\n"
        "assert c.presets(None, 'cart') and c.agents(None, 'ppo') and c.worlds(None, 'maze')\n"
        "print({'numpy', 'torch', 'gymnasium', 'pydantic'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


PLUGIN = """
from gumdrop.agents.random import Random
from gumdrop.agents.registry import agent
from gumdrop.envs.registry import world
from gumdrop.envs.worlds.corridor import Corridor
agent("mine")(type("Mine", (Random,), {"__doc__": "Mine."}))
world("mine")(type("Mine", (Corridor,), {"__doc__": "My corridor.", "presets": {}}))
"""


def test_a_plugin_file_is_loaded_before_names_are_looked_up(folder: Path) -> None:
    """Each in a process of its own, which knows nothing of the file otherwise."""
    (folder / "mine.py").write_text(PLUGIN)
    plugin = ("--plugin", "mine.py")
    for words in (["env", "list"], ["env", "show", "mine"], ["agent", "list"], ["agent", "show", "mine"]):
        listed = run(*words, *plugin)
        assert listed.returncode == 0 and "mine" in listed.stdout, listed
    assert main(["env", "show", "mine"]) == main(["agent", "show", "mine"]) == 2  # the control
    made = ["--env", "mine", "--agent", "mine", "steps=256", "num_envs=4", "--no-live", "--no-report"]
    trained = ["train", *made, "--name", "a"]
    assert run(*trained, *plugin).returncode == 0
    for words in (["eval", "a", "--episodes", "9"], ["rollout", "a", "--json"]):  # the run remembers it
        assert run(*words).returncode == 0
    assert run("eval", "mine", "--env", "mine", "--episodes", "9", *plugin).returncode == 0
    seeds = run(*trained[:-1], "b", "--seeds", "2", *plugin)
    assert seeds.returncode == 0, seeds
    (folder / "mine.py").rename(folder / "gone.py")
    for words in (["eval", "a"], ["resume", "b"], [*trained[:-1], "c", *plugin]):
        refused = run(*words)
        assert refused.returncode == 2 and re.fullmatch(r"gumdrop: plugin .*mine.py: no such file\n", refused.stderr), refused
    assert not (folder / "runs" / "c").exists()


def test_env_list_needs_neither_torch_nor_numba() -> None:
    code = (
        "import sys; from gumdrop.scripts.cli import main; main(['env', 'list']);"
        "print(*({'torch', 'numba', 'wandb', 'matplotlib'} & set(sys.modules)), 'loaded')"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()
    assert lines[-1] == "loaded"
    assert lines[0].split() == ["id", "observation", "actions", "agents", "solver", "description"]
    assert any(line.startswith("candy ") and " dynamic programming " in line for line in lines)


def test_env_list_names_broken_plugins(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from gumdrop.envs import registry

    monkeypatch.setattr(registry, "plugin_errors", lambda: (registry.PluginError("lava", "ImportError: no lava"),))
    assert main(["env", "list"]) == 0
    assert "broken plugin lava: ImportError: no lava" in capsys.readouterr().out
    assert document(capsys, "env", "list")["broken"] == [{"name": "lava", "reason": "ImportError: no lava"}]


def test_env_show(capsys: pytest.CaptureFixture[str]) -> None:
    shown = document(capsys, "env", "show", "maze", "layout=S./.G", "env.slip=0.25")
    options = {row["name"]: row for row in shown["options"]}
    assert options["slip"]["value"] == 0.25 and options["slip"]["default"] == 0.0
    assert "probability" in options["slip"]["description"] and "<= 1" in options["slip"]["type"]
    assert "@" in shown["picture"] and "G" in shown["picture"] and shown["actions"] == "Discrete(4)"
    assert main(["env", "show", "CartPole-v1"]) == 0
    assert "Discrete(2)" in capsys.readouterr().out


def test_env_solve_gives_the_exact_figures(capsys: pytest.CaptureFixture[str]) -> None:
    solved = document(capsys, "env", "solve", "maze", "layout=S./.G", "time_limit=10")
    assert solved["optimal"] == 1.0 and 0 < solved["random"] < 1
    assert main(["env", "solve", "maze", "layout=S./.G", "time_limit=10"]) == 0
    assert re.search(r"optimal +1\.000000", capsys.readouterr().out)


def test_agents(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"ppo", "random"} <= {row["name"] for row in document(capsys, "agent", "list")["agents"]}
    rows = {row["name"]: row for row in document(capsys, "agent", "show", "ppo")["options"]}
    assert rows["gamma"]["default"] == 0.99


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.perf_counter()
    found = document(capsys, "doctor")
    assert time.perf_counter() - began < 60
    checks = {check["name"]: check for check in found["checks"]}
    assert found["ok"] and {c["status"] for c in checks.values()} <= {"ok", "warn"}
    assert all(c["fix"] for c in checks.values() if c["status"] == "warn")
    assert checks["self-test: worlds"]["status"] == checks["self-test: checkpoint"]["status"] == "ok"
    assert checks["numpy"]["detail"] == np.__version__


def test_doctor_finds_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gumdrop.experiments import doctor as runtime
    from gumdrop.store import checkpoint

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GUMDROP_CACHE", str(tmp_path / "file"))
    (found,) = runtime._kernel_cache()
    assert found.status == "warn" and "GUMDROP_CACHE" in found.fix
    monkeypatch.setattr(checkpoint, "digest", lambda tensors: os.urandom(4))
    (found,) = runtime._checkpoints()
    assert found.status == "fail"
    monkeypatch.setattr(runtime, "doctor", lambda: {"ok": False, "checks": [found._asdict()]})
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.startswith("fail")


def test_a_run_from_train_to_compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = document(capsys, *RANDOM, "--seed", "3")
    assert made["run"] == "runs/bandit-random-0001" and made["status"] == "finished" and made["env_steps"] >= 256
    again = document(capsys, *RANDOM, "--seed", "4")
    assert again["run"] == "runs/bandit-random-0002"
    from gumdrop.configs.loader import read_run

    config = read_run(folder / made["run"] / "config.yaml")
    assert (config.seed, config.name, config.steps) == (3, "bandit-random-0001", 256)

    result = document(capsys, "eval", "bandit-random-0001", "--episodes", "20")
    assert result["episodes"] == 20 and len(result["agent"]["returns"]) == 20
    assert document(capsys, "eval", made["run"], "--episodes", "20") == result
    named = document(capsys, "eval", "random", "--env", "bandit", "arms=2", "--episodes", "9")
    assert named["episodes"] == 9 and named["mode"] == "sample"
    assert document(capsys, "eval", "ucb1", "--env", "bandit", "--episodes", "9", "--mode", "greedy")["mode"] == "greedy"

    rolled = document(capsys, "rollout", "bandit-random-0001", "--out", "a.gif")
    assert rolled["out"] == "a.gif" and rolled["episodes"][0]["length"] == 100
    assert (folder / "a.gif").read_bytes()[:3] == b"GIF"
    assert main(["rollout", "random", "--env", "maze", "layout=S.G", "slip=0"]) == 0
    assert re.search(r"@.*\n\nepisode 1: return 1\.000, \d+ steps", capsys.readouterr().out, re.S)

    compared = document(capsys, "compare", "bandit-random-0001", "bandit-random-0002")
    assert [row["seed"] for row in compared["runs"]] == [3, 4]
    # the quick look at 20 episodes did not replace the evaluation of 1,000 that training ended with
    assert compared["runs"][0]["evaluated"] == pytest.approx(made["evaluation"]["agent"]["mean"])
    assert main(["compare", "bandit-random-0001", "bandit-random-0002"]) == 0
    assert capsys.readouterr().out.count("bandit-random-") == 2

    assert main(["resume", "bandit-random-0001"]) == 2
    assert "finished" in capsys.readouterr().err


def test_many_seeds_from_train_to_compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = document(capsys, *RANDOM, "--seed", "3", "--seeds", "2", "eval_episodes=30")
    assert made["run"] == "runs/bandit-random-0001" and made["status"] == "finished"
    assert [(row["seed"], row["run"]) for row in made["seeds"]] == [(3, "seed-3"), (4, "seed-4")]
    low, high = made["return"]["ci95"]
    assert low <= made["return"]["mean"] <= high and json.loads((folder / made["run"] / "group.json").read_text())

    name = "bandit-random-0001/seed-4"
    assert document(capsys, "eval", name, "--episodes", "5")["episodes"] == 5
    assert document(capsys, "rollout", f"runs/{name}")["episodes"][0]["length"] == 100
    assert document(capsys, "report", name)["report"] == f"runs/{name}/report.html"
    compared = document(capsys, "compare", name, "bandit-random-0001/seed-3", "--out", "a.html")
    assert [row["run"] for row in compared["runs"]] == [name, "bandit-random-0001/seed-3"]

    compared = document(capsys, "compare", "bandit-random-0001", name)
    group, single = compared["algorithms"]
    assert group["seeds"] == [3, 4] and single["seeds"] == [4] and single["iqm"]["ci95"] is None
    assert group["scores"] == [row["return"] for row in made["seeds"]]
    assert compared["notes"][-1] == "seed-4: one training seed: no interval over seeds"
    assert main(["compare", "bandit-random-0001", name]) == 0
    out, err = capsys.readouterr()
    assert "P(better than bandit-random-0001)" in out and err.splitlines() == compared["notes"]

    for verb, words in (("eval", "a group of runs: name one"), ("resume", "finished"), ("report", "seed-3")):
        assert main([verb, "bandit-random-0001"]) == 2
        assert words in capsys.readouterr().err
    assert main(["resume", name]) == 2
    assert "finished" in capsys.readouterr().err


def test_a_leaderboard_goes_on_where_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["leaderboard", "bandit", "--agents", "random", "--steps", "256", "--seeds", "2", "num_envs=4", "eval_episodes=20"]
    made = document(capsys, *words, "--no-live")
    assert made["folder"] == "runs/leaderboard-bandit" and made["skipped"] == made["failed"] == {}
    (row,) = made["algorithms"]
    assert (row["rank"], row["name"], row["seeds"], row["env_steps"]) == (1, "random", [0, 1], 256)
    before = (folder / "runs/leaderboard-bandit/random/group.json").read_bytes()
    assert main([*words, "--out", "board.png"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^1\* +random +\d", out, re.M) and "written: runs/leaderboard-bandit/leaderboard.json, board.png" in out
    assert "random is finished already" in err and (folder / "board.png").read_bytes()[1:4] == b"PNG"
    assert (folder / "runs/leaderboard-bandit/random/group.json").read_bytes() == before
    assert main([*words[:4], "--steps", "512", "--seeds", "2", "num_envs=4", "eval_episodes=20"]) == 2
    assert "has steps 256, not 512" in capsys.readouterr().err
    assert main(["compare", "leaderboard-bandit/random", "leaderboard-bandit/random/seed-1"]) == 0


def test_a_leaderboard_tells_how_it_ended(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gumdrop.experiments.run import train
    from gumdrop.experiments.study import groups

    def stop(*_: Any, **__: Any) -> None:
        raise train.Interrupted(signal.SIGINT)

    monkeypatch.setattr(groups, "train_group", stop)
    words = ["leaderboard", "bandit", "--agents", "random", "--json"]
    assert main(words) == 130
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "interrupted" and "the same command goes on" in err
    monkeypatch.setattr(groups, "train_group", lambda *_, **__: 1 / 0)
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert list(json.loads(out)["failed"]) == ["random"] and "failed in part or whole: random" in err


def test_a_failed_seed_gives_exit_status_1(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gumdrop.experiments.run import group

    row = {"status": "finished", "env_steps": 256, "seconds": 1.0, "return": 5.0, "share_of_optimal": None}
    rows = [{**row, "seed": 0, "run": "seed-0"}, {**row, "seed": 1, "run": "seed-1", "status": "failed", "error": "nan"}]
    over = {"return": {"mean": 5.0, "ci95": [4.0, 6.0]}, "share_of_optimal": None, "interval": "Student t over training seeds"}
    monkeypatch.setattr(group, "train_group", lambda *_, **__: {"status": "failed", "seeds": rows, **over})
    assert main([*RANDOM, "--seeds", "2"]) == 1
    out, err = capsys.readouterr()
    assert "mean return 5.000 (95 %: 4.000 to 6.000, Student t over training seeds)" in out
    assert err == "1 of 2 seeds failed: `gumdrop resume runs/bandit-random-0001` goes on with them\n"
    assert main([*RANDOM, "--seeds", "2", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["seeds"] == rows


def test_an_explicit_name_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs" / "mine").mkdir(parents=True)
    (folder / "runs" / "mine" / "note").write_text("keep me")
    assert main([*RANDOM, "--name", "mine"]) == 2
    assert "gumdrop resume mine" in capsys.readouterr().err
    assert [p.name for p in (folder / "runs").rglob("*")] == ["mine", "note"]


def test_default_names_count_on(folder: Path) -> None:
    assert new_folder(folder, "", "candy-ppo").name == "candy-ppo-0001"
    (folder / "candy-ppo-0007").mkdir()
    (folder / "candy-ppo-x").mkdir()
    assert new_folder(folder, "", "candy-ppo").name == "candy-ppo-0008"
    assert new_folder(folder, "", "module:../Id-v1").name == "module-Id-v1-0001"
    assert new_folder(folder, "own", "x").name == "own"


def test_a_refused_agent_leaves_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gumdrop.experiments.run import train as runtime

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("no")

    assert main([*RANDOM, "--steps", "3"]) == 2  # less than one update
    monkeypatch.setattr(runtime, "train", refuse)
    main(RANDOM)
    assert list((folder / "runs").iterdir()) == []


def test_what_others_print_does_not_reach_the_document(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gumdrop.experiments.run import train as runtime

    def chatty(*_: Any, **__: Any) -> dict[str, Any]:
        print("hello")
        return {"status": "finished", "speed": np.float32("nan"), "returns": np.arange(2), "at": Path("x")}

    monkeypatch.setattr(runtime, "train", chatty)
    assert document(capsys, *RANDOM, "--no-report") == {
        "run": "runs/bandit-random-0001", "status": "finished", "speed": None, "returns": [0, 1], "at": "x",
    }  # fmt: skip


def test_an_interruption_keeps_its_exit_status(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gumdrop.experiments.run import train as runtime

    def stop(*_: Any, **__: Any) -> None:
        raise runtime.Interrupted(signal.SIGTERM)

    monkeypatch.setattr(runtime, "train", stop)
    assert main([*RANDOM, "--json"]) == 143
    assert json.loads(capsys.readouterr().out)["status"] == "interrupted"


def test_bugs_are_told_in_two_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(_: Any) -> None:
        raise KeyError("left\nright")

    monkeypatch.setattr(common, "emit", bug)
    monkeypatch.setattr("gumdrop.scripts.agent.emit", bug)
    assert main(["agent", "list", "--json"]) == 1
    err = capsys.readouterr().err
    assert err.splitlines() == ["gumdrop: KeyError: 'left\\nright'", "set GUMDROP_DEBUG=1 for the traceback"]
    monkeypatch.setenv("GUMDROP_DEBUG", "1")
    assert main(["agent", "list", "--json"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_whose_fault_an_error_is() -> None:
    def status(work: Any) -> int:
        try:
            work()
        except Exception as error:
            return errors.explain(error)[0]
        raise AssertionError("no error")

    from gumdrop.envs import registry

    assert status(lambda: registry.make_world("nope")) == 2
    assert status(lambda: common.find_run("nope", Path("nowhere"))) == 2
    assert status(lambda: Path("nowhere").read_text()) == 2
    assert status(lambda: np.zeros(3).reshape(2)) == 1  # a ValueError, but numpy's
    assert status(lambda: int("x")) == 1
    assert status(lambda: np.empty(2**48)) == 2  # memory: take fewer copies
    assert status(lambda: {}["x"]) == 1


def test_ctrl_c_is_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gumdrop.envs.registry.worlds", stop)
    assert main(["env", "list"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen([*COMMAND, "env", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_keys_of_play() -> None:
    assert [play.action(k, 5) for k in (b"a", b"\x1b[B", b"d", b"\x1b[A", b" ", b"3", b"7", b"x")] == [
        0, 1, 2, 3, 4, 3, None, None,
    ]  # fmt: skip
    assert [play.action(k, 2) for k in (b"a", b"d", b"w", b" ")] == [0, 1, None, None]
    assert play.split_keys(b"a\x1b[A3\x1b[D\x1b") == ([b"a", b"\x1b[A", b"3", b"\x1b[D"], b"\x1b")
    assert play.split_keys(b"\x1b[A" * 21 + b"\x1b") == ([b"\x1b[A"] * 21, b"\x1b")  # a read of 64 bytes ends within a key
    assert play.split_keys(b"\x1b[15~5\x1b[1;5Cq") == ([b"\x1b[15~", b"5", b"\x1b[1;5C", b"q"], b"")  # F5, Ctrl and right
    assert play.split_keys(b"\x1baw\x1b[1;") == ([b"\x1ba", b"w"], b"\x1b[1;") and play.split_keys(b"") == ([], b"")


def test_play_in_a_terminal() -> None:
    """Two steps to the right end the episode; q leaves, and the terminal gets its cursor and echo back."""
    import termios

    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    words = ["env", "play", "maze", "layout=S.G", "slip=0", "view=3"]
    process = subprocess.Popen([*COMMAND, *words], stdin=slave, stdout=slave, stderr=slave)
    seen = b""
    deadline = time.monotonic() + 60

    def wait_for(text: bytes) -> None:
        nonlocal seen
        while text not in seen and time.monotonic() < deadline:
            seen += os.read(master, 4096)
        assert text in seen, seen
        seen = seen.partition(text)[2]

    wait_for(b"q quits")
    os.write(master, b"\x1b[C")
    wait_for(b"reward 0")
    os.write(master, b"d")
    wait_for(b"the end: return 1.000 in 2 steps")
    os.write(master, b"q")
    assert process.wait(30) == 0
    assert termios.tcgetattr(slave)[3] == before[3]
    os.close(master)
    os.close(slave)
