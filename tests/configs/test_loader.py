"""The loader: precedence, merging, numbers, refusals, and a dump that reads back equal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from gumdrop.configs import loader
from gumdrop.configs.loader import (
    ConfigError,
    dump,
    dump_group,
    parse,
    parse_options,
    parse_value,
    presets,
    read_group,
    read_run,
    resolve,
)
from gumdrop.configs.schema import RunConfig, check_name


@pytest.fixture
def own_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A preset called "own" that sets every key that the precedence test looks at."""
    path = tmp_path / "own.yaml"
    path.write_text("env: {id: candy, size: 1}\nagent: {name: ppo, gamma: 0.1}\nseed: 1\nsteps: 1\nnum_envs: 1\n")
    monkeypatch.setattr(loader, "presets", lambda: {"own": path})
    return "own"


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "file.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def fault(*args: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(*args)
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 3
    return text


def test_five_levels_each_over_the_one_before(own_preset: str, tmp_path: Path) -> None:
    defaults = RunConfig()
    assert (defaults.seed, defaults.steps, defaults.num_envs, defaults.threads) == (0, 1_000_000, 64, 0)
    file = write(tmp_path, "env: {slip: 0.5}\nsteps: 2\nnum_envs: 2\nseed: 2\n")

    got = resolve(own_preset, None, [], {})  # preset over defaults, which stay where it is silent
    assert (got.seed, got.steps, got.num_envs, got.threads) == (1, 1, 1, 0)
    got = resolve(own_preset, file, [], {})  # file over preset
    assert (got.seed, got.steps, got.num_envs) == (2, 2, 2)
    assert got.env == {"id": "candy", "size": 1, "slip": 0.5}
    got = resolve(own_preset, file, ["num_envs=3", "seed=3", "env.slip=0.3"], {})  # key=value over file
    assert (got.seed, got.steps, got.num_envs) == (3, 2, 3)
    assert got.env == {"id": "candy", "size": 1, "slip": 0.3}
    got = resolve(own_preset, file, ["num_envs=3", "seed=3"], {"seed": 4, "steps": None})  # flags over all
    assert (got.seed, got.steps, got.num_envs) == (4, 2, 3)
    assert got.agent == {"name": "ppo", "gamma": 0.1}


def test_another_environment_drops_the_options_of_the_former_one(own_preset: str, tmp_path: Path) -> None:
    assert resolve(own_preset, None, ["env.size=9"], {}).env == {"id": "candy", "size": 9}
    assert resolve(own_preset, None, ["env.id=maze"], {}).env == {"id": "maze"}
    assert resolve(own_preset, None, ["env=maze", "env.slip=0.2"], {}).env == {"id": "maze", "slip": 0.2}
    # words on the command line are meant for the environment that a flag names, whatever their order
    assert resolve(own_preset, None, ["env.slip=0.2"], {"env": "maze"}).env == {"id": "maze", "slip": 0.2}
    assert resolve(own_preset, None, [], {"env": "candy"}).env == {"id": "candy", "size": 1}
    assert resolve(own_preset, None, [], {"agent": "random"}).agent == {"name": "random"}
    assert resolve(own_preset, None, [], {"env": "maze"}).agent == {"name": "ppo", "gamma": 0.1}
    file = write(tmp_path, "env: {id: maze, view: 5}\n")
    assert resolve(own_preset, file, [], {}).env == {"id": "maze", "view": 5}
    assert resolve(own_preset, file, [], {"env": "bandit"}).env == {"id": "bandit"}
    assert resolve(None, write(tmp_path, "env: {arms: 3}"), [], {"env": "bandit"}).env == {"id": "bandit", "arms": 3}


def test_nested_options_are_merged_key_by_key(tmp_path: Path) -> None:
    file = write(tmp_path, "agent: {net: {width: 64, depth: 2}, sizes: [1, 2]}\n")
    got = resolve(None, file, ["agent.net.width=5", "agent.sizes=[3]"], {}).agent
    assert got == {"name": "ppo", "net": {"width": 5, "depth": 2}, "sizes": [3]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1e6),
        ("1_000_000", 1_000_000),
        ("1E-3", 0.001),
        (".5", 0.5),
        ("-3", -3),
        ("007", 7),
        ("0x10", 16),
        ("true", True),
        ("False", False),
        ("null", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("S.#/..G", "S.#/..G"),
        ("##/G#", "##/G#"),
        ("a: b #c", "a: b #c"),
        ("'7'", "7"),
        ('"a b"', "a b"),
        ("[1, 2.5, x]", [1, 2.5, "x"]),
        ("{a: 1}", {"a": 1}),
        ("a=b", "a=b"),
        ("S.\n.G", "S.\n.G"),
        ("-", "-"),
        ("1e", "1e"),
    ],
)
def test_values(text: str, value: Any) -> None:
    got = parse_value(text, "key")
    assert got == value and type(got) is type(value)


def test_whole_numbers_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    assert resolve(None, None, ["steps=2e6", "num_envs=1_024"], {}).steps == 2_000_000
    assert resolve(None, write(tmp_path, "steps: 1e5\nnum_envs: 2_048\n"), [], {}).num_envs == 2048
    assert resolve(None, None, [], {"steps": 3e3}).steps == 3000
    assert resolve(None, None, ["track=wandb"], {}).track == ["wandb"]


def test_every_preset_resolves_and_reads_back_equal(tmp_path: Path) -> None:
    assert set(presets()) >= {"candy-ppo", "maze-ppo", "bandit-ppo", "cartpole-ppo"}
    for name in presets():
        config = resolve(name, None, [], {})
        assert read_run(write(tmp_path, dump(config))) == config
        differences = parse(presets()[name].read_text(), name)
        plain = RunConfig().model_dump()
        same = [key for key in differences if key not in ("env", "agent") and differences[key] == plain[key]]
        assert not same, f"preset {name} repeats defaults: {same}"


def test_dump_keeps_texts_that_look_like_something_else(tmp_path: Path) -> None:
    odd = [
        "1e6",
        "nan",
        "true",
        "null",
        "",
        "no",
        "0x1",
        "1_000",
        "a: b",
        "#",
        "- x",
        "é\n\t",
        "1:30",
        "~",
        "=",
        "<<",
        "&a",
    ]
    env = {
        "id": "candy",
        "odd": odd,
        "float": 1e-07,
        "big": 1e22,
        "whole": 2.0,
        "nested": {"a": [{"b": None}]},
        "no": (1, 2),
    }
    config = RunConfig(env=env, seed=2**63 - 1)
    back = read_run(write(tmp_path, dump(config)))
    assert back.env == env | {"no": [1, 2]} and back.seed == config.seed
    assert [type(v) for v in back.env["odd"]] == [str] * len(odd) and type(back.env["whole"]) is float


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stepz=1"], "no key 'stepz': did you mean steps?"),
        (["num_env=1"], "did you mean num_envs?"),
        (["size=7"], "env.size"),
        (["steps=many"], "steps: should be a number (got 'many')"),
        (["steps=0"], "steps: should be greater than or equal to 1 (got 0)"),
        (["steps=1.5"], "fractional"),
        (["num_envs=true"], "num_envs: should be a number (got True)"),
        (["seed=-1"], "seed: "),
        (["checkpoint_seconds=nan"], "not a finite number"),
        (["agent.gamma=.inf"], "not a finite number"),
        (["agent.gamma=1e999"], "not a finite number"),
        (["track=wandbb"], "did you mean wandb?"),
        (["env=7"], "env is a number"),
        (["env={size: 7}", "env.id=3"], "env.id"),
        (["agent=[ppo]"], "agent is a list"),
        (["steps"], "not key=value"),
        (["=3"], "is not a key"),
        (["env..size=3"], "is not a key"),
        (["seed=1", "seed=2"], "seed is given twice"),
        (["env.a=1", "env.a.b=2"], "cannot both be given"),
        (["env.a.b=2", "env.a=1"], "cannot both be given"),
        (["env.x=!!python/name:os.system"], "refused"),
        (["env.x=[1, 2"], "not YAML"),
        (["env.x=&a [1]"], "anchors"),
        (["env.x=*a"], "anchors"),
        (["env.x={a: 1, a: 2}"], "twice"),
        (["env.x=" + "[" * 50 + "]" * 50], "nested"),
        (["name=../x"], "'..'"),
        (["project="], "project"),
    ],
)
def test_overrides_that_are_refused(overrides: list[str], words: str) -> None:
    assert words in fault(None, None, overrides, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"),
        (b"# nothing\n", "empty"),
        (b"- a\n- b\n", "holds a list"),
        (b"just words", "holds a text"),
        (b"42", "holds a number"),
        (b"steps: 1\nsteps: 2\n", "'steps' stands there twice"),
        (b"env: {id: candy, id: maze}", "'id' stands there twice"),
        (b"1: 2\n", "key '1' is not a text"),
        (b"? [a]\n: 1\n", "is not a text"),
        (b"env: !!python/object/apply:os.system ['true']", "refused"),
        (b"!!map {steps: 1}", "refused"),
        (b"steps: &a 1\n", "anchors"),
        (b"steps: *a\n", "anchors"),
        (b"steps: [1", "line"),
        (b"steps: 1\n\tseed: 2", "not YAML"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a: \x00", "not YAML"),
        (b"steps: .nan", "not a finite number"),
        (b"--- \nsteps: 1\n---\nsteps: 2\n", "not YAML"),
        (b"[" * 100_000, "nested"),
        (b"{a: " * 5_000, "nested"),
        (b"steps: " + b"9" * 5000, "digits"),
        (b"steps: 1\n" + b"#" * 1_000_001, "larger than"),
        (b"stepz: 1\nzeed: 2\nnaem: x\nfoo: 1\n", "and 2 more"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: bytes, words: str) -> None:
    assert words in fault(None, write(tmp_path, text), [], {})


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [" + ", ".join([f"*a{k - 1}"] * 9) + "]" for k in range(1, 12)]
    started = time.perf_counter()
    assert "anchors" in fault(None, write(tmp_path, "\n".join(lines)), [], {})
    assert time.perf_counter() - started < 1


def test_places_that_hold_no_file(tmp_path: Path) -> None:
    assert "a folder, not a file" in fault(None, tmp_path, [], {})
    write(tmp_path, "seed: 1")
    assert "did you mean file.yaml?" in fault(None, tmp_path / "flie.yaml", [], {})
    assert "no such file" in fault(None, tmp_path / "none" / "x.yaml", [], {})
    assert "did you mean candy-ppo?" in fault("cady-ppo", None, [], {})
    assert "known are" in fault("zzzz", None, [], {})


def test_several_faults_are_told_at_once(tmp_path: Path) -> None:
    text = fault(None, None, ["steps=x", "seed=-1"], {})
    assert text.splitlines() == [
        "steps: should be a number (got 'x')",
        "seed: should be greater than or equal to 0 (got -1)",
    ]


def test_a_group_is_a_configuration_and_seeds(tmp_path: Path) -> None:
    config = resolve("candy-ppo", None, [], {"seed": 7, "name": "many"})
    assert read_group(write(tmp_path, dump_group(config, range(7, 10)))) == (config, [7, 8, 9])
    for seeds in ("", "seeds: []", "seeds: 3", "seeds: [1, 1]", "seeds: [-1]", "seeds: [true]", f"seeds: [{2**63}]"):
        with pytest.raises(ConfigError, match="seeds: should be a list of different whole numbers"):
            read_group(write(tmp_path, dump(config) + seeds))
    with pytest.raises(ConfigError, match="stepz"):
        read_group(write(tmp_path, "stepz: 1\nseeds: [1]"))


def test_options_of_one_thing() -> None:
    assert parse_options(["size=7", "env.slip=0.1"], "env.") == {"size": 7, "slip": 0.1}
    with pytest.raises(ConfigError, match="not key=value"):
        parse_options(["size"])


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "a/b", "a\\b", "../x", "a..b", ".hidden", "-x", "a\0b", "x" * 101, "a\nb"]
)
def test_names_that_could_leave_their_folder(name: str) -> None:
    with pytest.raises(ValueError, match="run name"):
        check_name(name)


def test_names_that_are_fine() -> None:
    assert [check_name(n) for n in (" a ", "candy-ppo-0001", "süß_1.5+x=2@3")] == [
        "a",
        "candy-ppo-0001",
        "süß_1.5+x=2@3",
    ]
