"""Malformed configurations, overrides, ids, runs and checkpoints: exit status 2, one to three lines, nothing done.

Every case is one command line in a folder that holds a sound run, a plugin-like canary and a few bad files. After it,
the folder is byte for byte what it was: nothing was executed, made or overwritten.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gumdrop.scripts.cli import main


class Case(NamedTuple):
    argv: list[str]
    says: str = ""  # words that stderr must hold, e.g. a suggestion


class Payload:
    """Unpickled, it makes the file `canary` in the working directory."""

    def __reduce__(self) -> Any:
        return (os.system, ("touch canary",))


TRAIN = [
    Case(["train", *words], says)
    for words, says in [
        # presets and words
        (["cady-ppo"], "did you mean candy-ppo?"),
        (["Candy-PPO"], "did you mean candy-ppo?"),
        (["maze_ppo"], "did you mean maze-ppo?"),
        (["cartpole"], "did you mean cartpole-ppo?"),
        (["../presets/candy-ppo"], "preset"),
        (["candy-ppo.yaml"], "did you mean candy-ppo?"),
        (["zzz"], "known are"),
        ([""], "no preset"),
        ([], "name a preset"),
        (["steps=1"], "name a preset"),
        (["candy-ppo", "maze-ppo"], "not key=value"),
        (["candy-ppo", "steps"], "not key=value"),
        (["candy-ppo", "=1"], "is not a key"),
        (["candy-ppo", "env.=1"], "is not a key"),
        (["candy-ppo", ".env=1"], "is not a key"),
        (["candy-ppo", "env..size=1"], "is not a key"),
        (["candy-ppo", "en v.size=1"], "is not a key"),
        (["candy-ppo", "__class__.x=1"], "no key"),
        (["candy-ppo", ".".join(["a"] * 100) + "=1"], "is not a key"),
        (["candy-ppo", "steps=1", "steps=2"], "given twice"),
        (["candy-ppo", "env.size=5", "env.size.x=2"], "cannot both"),
        # keys and types of the run
        (["candy-ppo", "stepz=1"], "did you mean steps?"),
        (["candy-ppo", "sede=1"], "did you mean seed?"),
        (["candy-ppo", "numenvs=1"], "did you mean num_envs?"),
        (["candy-ppo", "eval_episode=1"], "did you mean eval_episodes?"),
        (["candy-ppo", "gamma=0.9"], "agent.gamma"),
        (["candy-ppo", "size=7"], "env.size"),
        (["candy-ppo", "steps=ten"], "should be a number"),
        (["candy-ppo", "steps="], "should be a number"),
        (["candy-ppo", "steps=null"], "should be a number"),
        (["candy-ppo", "steps=[1]"], "should be a number"),
        (["candy-ppo", "steps={a: 1}"], "should be a number"),
        (["candy-ppo", "steps=true"], "should be a number"),
        (["candy-ppo", "steps='100'"], "should be a number"),
        (["candy-ppo", "steps=1.5"], "steps"),
        (["candy-ppo", "steps=0"], "steps"),
        (["candy-ppo", "steps=-1"], "steps"),
        (["candy-ppo", "steps=1e400"], "finite"),
        (["candy-ppo", "steps=1e99"], "steps"),
        (["candy-ppo", "steps=nan"], "finite"),
        (["candy-ppo", "steps=-inf"], "finite"),
        (["candy-ppo", "steps=" + "9" * 5000], "digits"),
        (["candy-ppo", "num_envs=0"], "num_envs"),
        (["candy-ppo", "num_envs=1e12"], "num_envs"),
        (["candy-ppo", "seed=-1"], "seed"),
        (["candy-ppo", f"seed={2**64}"], "seed"),
        (["candy-ppo", "threads=-2"], "threads"),
        (["candy-ppo", "checkpoint_seconds=0"], "checkpoint_seconds"),
        (["candy-ppo", "keep_checkpoints=0"], "keep_checkpoints"),
        (["candy-ppo", "eval_episodes=0"], "eval_episodes"),
        (["candy-ppo", "track=wandbb"], "did you mean wandb?"),
        (["candy-ppo", "track=[wandb, 3]"], "track"),
        (["candy-ppo", "track={a: 1}"], "track"),
        (["candy-ppo", "project="], "project"),
        (["candy-ppo", "a=1", "b=2", "c=3", "d=4", "e=5"], "and 3 more"),
        (["candy-ppo", "env=7"], "env is a number"),
        (["candy-ppo", "env=[candy]"], "env is a list"),
        (["candy-ppo", "env=null"], "env is a null"),
        (["candy-ppo", "agent=true"], "agent is a"),
        (["candy-ppo", "env.id=7"], "env.id"),
        (["candy-ppo", "env.id="], "env.id"),
        (["candy-ppo", "agent.name=[ppo]"], "agent.name"),
        # YAML in a value
        (["candy-ppo", "env.size=!!python/object/apply:os.system ['touch canary']"], "refused"),
        (["candy-ppo", "env=!!python/object/new:os.system ['touch canary']"], "refused"),
        (["candy-ppo", "name=!!python/name:os.system"], "refused"),
        (["candy-ppo", "env.size=!!int 7"], "refused"),
        (["candy-ppo", "env.values=&a [1]"], "anchors"),
        (["candy-ppo", "env.values=*a"], "anchors"),
        (["candy-ppo", "env.values=[1, 2"], "not YAML"),
        (["candy-ppo", "env.values=]"], "values"),
        (["candy-ppo", "env.values=" + "[" * 3000], "nested"),
        (["candy-ppo", "env.values={a: 1, a: 2}"], "twice"),
        (["candy-ppo", "env.values=[.nan]"], "finite"),
        # options of worlds
        (["candy-ppo", "env.siz=7"], "did you mean size?"),
        (["candy-ppo", "env.candys=7"], "did you mean candies?"),
        (["candy-ppo", "env.size=big"], "size"),
        (["candy-ppo", "env.size=1"], "size"),
        (["candy-ppo", "env.size=7.5"], "size"),
        (["candy-ppo", "env.size=[7]"], "size"),
        (["candy-ppo", "env.size=1e9"], "size"),
        (["candy-ppo", "env.view=4"], "odd"),
        (["candy-ppo", "env.values=[]"], "values"),
        (["candy-ppo", "env.values=[a]"], "values"),
        (["candy-ppo", "env.agents=9"], "agents"),
        (["candy-ppo", "env.slip=2"], "slip"),
        (["candy-ppo", "env.slip=-0.1"], "slip"),
        (["candy-ppo", "env.size=2", "env.candies=64"], "fit"),
        (["candy-ppo", "env.time_limit=-1"], "time_limit"),
        (["maze-ppo", "env.layout=S.#"], "goal"),
        (["maze-ppo", "env.layout=S/..G"], "layout"),
        (["maze-ppo", "env.layout=SXG"], "layout"),
        (["maze-ppo", "env.layout=" + "S" * 200 + "G"], "layout"),
        (["maze-ppo", "env.size=4"], "size"),
        (["bandit-ppo", "env.arms=1"], "arms"),
        (["bandit-ppo", "env.reward=gausian"], "gaussian"),
        (["bandit-ppo", "env.sd=-1"], "sd"),
        (["--env", "maze", "env.candies=3"], "no option 'candies'"),
        # options of agents
        (["candy-ppo", "agent.gama=0.9"], "did you mean gamma?"),
        (["candy-ppo", "agent.lr=0.9"], "no option 'lr'"),
        (["candy-ppo", "agent.gamma=1.5"], "gamma"),
        (["candy-ppo", "agent.gamma=high"], "gamma"),
        (["candy-ppo", "agent.learning_rate=0"], "learning_rate"),
        (["candy-ppo", "agent.hidden=[0]"], "hidden"),
        (["candy-ppo", "agent.hidden=64"], "hidden"),
        (["candy-ppo", "agent.schedule=cosin"], "cosine"),
        (["candy-ppo", "agent.update_epochs=0"], "epochs"),
        (["--env", "candy", "--agent", "random", "agent.gamma=0.9"], "no option 'gamma'"),
        # ids
        (["--env", "cndy"], "did you mean candy?"),
        (["--env", "Maze"], "did you mean maze?"),
        (["--env", ""], "env"),
        (["--env", "candy\n"], "no world"),
        (["--env", "../worlds/candy"], "no"),
        (["--env", "gumdrop/Candy-v9"], "no"),
        (["--env", "CartPol-v1"], "did you mean CartPole-v1?"),
        (["--env", "CartPole-v99"], "CartPole"),
        (["--env", "no_such_module:Thing-v0"], "no_such_module"),
        (["--env", ":CartPol-v1"], "CartPol"),
        (["--env", "CartPole-v1", "env.colour=red"], "colour"),
        (["--env", "candy", "--agent", "pppo"], "did you mean ppo?"),
        (["--env", "candy", "--agent", ""], "agent"),
        (["candy-ppo", "--agent", "randm"], "did you mean random?"),
        # names and places
        (["candy-ppo", "--name", ""], "run name"),
        (["candy-ppo", "--name", "  "], "run name"),
        (["candy-ppo", "--name", ".."], "run name"),
        (["candy-ppo", "--name", "../up"], "run name"),
        (["candy-ppo", "--name", "a/b"], "run name"),
        (["candy-ppo", "--name", "a\\b"], "run name"),
        (["candy-ppo", "--name", "/tmp/x"], "run name"),
        (["candy-ppo", "--name", "x" * 300], "run name"),
        (["candy-ppo", "--name", "a\x1b[31m"], "run name"),
        (["candy-ppo", "name=../up"], "run name"),
        (["candy-ppo", "name=7"], "name"),
        (["candy-ppo", "--name", "sound"], "gumdrop resume sound"),
        (["candy-ppo", "name=sound"], "gumdrop resume sound"),
        (["candy-ppo", "--dir", "garbage.bin"], "garbage.bin"),
        (["candy-ppo", "--dir", "garbage.bin/below"], "garbage.bin"),
        (["candy-ppo", "--dir", "x" * 5000], "long"),
        # flags
        (["candy-ppo", "--steps", "abc"], "steps"),
        (["candy-ppo", "--steps", "-5"], "steps"),
        (["candy-ppo", "--seed", "x"], "--seed"),
        (["candy-ppo", "--seed", "-1"], "seed"),
        (["candy-ppo", "--num-envs", "0"], "num_envs"),
        (["candy-ppo", "--num-envs", "1.5"], "--num-envs"),
        (["candy-ppo", "--track", "wandbb"], "did you mean wandb?"),
        (["candy-ppo", "--stepz", "5"], "--steps"),
        (["candy-ppo", "--steps"], "--steps"),
        (["candy-ppo", "--seeds", "0"], "--seeds"),
        (["candy-ppo", "--seeds", "10001"], "--seeds"),
        (["candy-ppo", "--seeds", "1.5"], "--seeds"),
        (["candy-ppo", "--seeds", "2", "threads=2"], "one core"),
        (["candy-ppo", "--seeds", "2", "--seed", str(2**63 - 1)], "seeds"),
        (["candy-ppo", "--seeds", "2", "--name", "sound"], "gumdrop resume sound"),
        (["candy-ppo", "-c", "missing.yaml"], "no such file"),
        (["candy-ppo", "-c", "runs"], "folder"),
        (["candy-ppo", "-c", "x" * 5000], "long"),
        (["-c", "garbage.bin"], "garbage.bin"),
        (["-c", "evil.pkl"], "evil.pkl"),
        (["-c", "evil.zip"], "evil.zip"),
    ]
]

FILES: list[tuple[bytes, str]] = [
    (b"", "empty"),
    (b"\n\n# only a comment\n", "empty"),
    (b"null", "empty"),
    (b"- 1\n- 2", "list"),
    (b"7", "number"),
    (b"words", "text"),
    (b"\x00\x01\x02", "not YAML"),
    (b"\xff\xfe" + bytes(range(256)), "UTF-8"),
    (b"PK\x03\x04" + bytes(40), "not YAML"),
    (b"steps: 1\nsteps: 2", "twice"),
    (b"steps: [1", "not YAML"),
    (b"steps: 1\n seed: 2", "not YAML"),
    (b"\tsteps: 1", "not YAML"),
    (b"'steps: 1", "not YAML"),
    (b"steps: 1\n---\nseed: 1", "not YAML"),
    (b"!!python/object/apply:os.system ['touch canary']", "refused"),
    (b"env: !!python/object/apply:os.system ['touch canary']", "refused"),
    (b"env: !!python/object/new:type {args: [a, [], {}]}", "refused"),
    (b"env: {id: !!python/name:os.system }", "refused"),
    (b"steps: !!python/object/apply:os.mkdir [canary]", "refused"),
    (b"env: !include /etc/hostname", "refused"),
    (b"%TAG ! tag:yaml.org,2002:python/\n--- !object/apply:os.system ['touch canary']", "refused"),
    (b"steps: !!binary aGk=", "refused"),
    (b"track: !!set {wandb}", "refused"),
    (b"a: &x [1]\nb: *x", "anchors"),
    (b"env: &e {id: candy, x: *e}", "anchors"),
    (b"<<: {steps: 1}", "no key"),
    (b"1: 2", "not a text"),
    (b"true: 2", "not a text"),
    (b"? {a: 1}\n: 2", "not a text"),
    (b"[" * 50_000, "nested"),
    (b"env: " + b"{a: " * 40 + b"1" + b"}" * 40, "nested"),
    (b"- " * 20_000 + b"1", "nested"),
    (b"#" * 1_100_000, "larger"),
    (b"stepz: 1", "did you mean steps?"),
    (b"sed: 1", "did you mean seed?"),
    (b"steps: yes", "should be a number"),
    (b"steps: .inf", "finite"),
    (b"seed: 0x" + b"f" * 500, "digits"),
    (b"env: 3", "env is a number"),
    (b"env: {siz: 3}", "did you mean size?"),
    (b"env: {id: cndy}", "did you mean candy?"),
    (b"env: {id: [a]}", "env.id"),
    (b"agent: {name: pppo}", "did you mean ppo?"),
    (b"agent: {name: ppo, gama: 1}", "did you mean gamma?"),
    (b"name: ../../up", "run name"),
    (b"track: [wandb, [wandb]]", "track"),
]

OTHERS = [
    Case(argv.split(), says)
    for argv, says in [
        ("trian", "Did you mean 'train'"),
        ("--stepz", "no such option"),
        ("env lst", "Did you mean 'list'"),
        ("env shwo candy", "Did you mean 'show'"),
        ("agent lst", "Did you mean 'list'"),
        ("bench envs", "Did you mean 'env'"),
        ("env show", "missing argument"),
        ("env list extra", "unexpected"),
        ("env show candi", "did you mean candy?"),
        ("env show bandit arms=1", "arms"),
        ("env show candy siz=3", "did you mean size?"),
        ("env show candy 3", "not key=value"),
        ("env show CartPol-v1", "did you mean CartPole-v1?"),
        ("env show candy --seed -3", "--seed"),
        ("env show candy --seed x", "--seed"),
        ("env check mze", "did you mean maze?"),
        ("env solve mze", "did you mean maze?"),
        ("env solve maze layout=SX", "layout"),
        ("env play candi", "did you mean candy?"),
        ("env play candy", "terminal"),
        ("agent show pppo", "did you mean ppo?"),
        ("agent show", "missing argument"),
        ("bench env cndy", "did you mean candy?"),
        ("bench env candy --environments 0", "--environments"),
        ("bench train --seconds 0", "--seconds"),
        ("bench train --vs skrll", "did you mean skrl?"),
        ("eval", "missing argument"),
        ("eval soud", "did you mean sound?"),
        ("eval pppo", "did you mean ppo?"),
        ("eval random", "--env"),
        ("eval random --env cndy", "did you mean candy?"),
        ("eval randm --env candy", "did you mean random?"),
        ("eval random --env candy siz=3", "did you mean size?"),
        ("eval sound --env candy", "leave --env away"),
        ("eval sound size=3", "--env"),
        ("eval sound --episodes 0", "--episodes"),
        ("eval sound --episodes 1e3", "--episodes"),
        ("eval sound --seed -1", "--seed"),
        ("eval ../../etc", "no run"),
        ("eval runs", "not a run folder"),
        ("eval garbage.bin", "not a run folder"),
        ("rollout soud", "did you mean sound?"),
        ("rollout sound --out x.txt", ".gif or .mp4"),
        ("rollout sound --out garbage.bin", ".gif or .mp4"),
        ("rollout sound --out no/where.gif", "no is not a folder"),
        ("rollout sound --fps 0", "--fps"),
        ("rollout random --env candy --episodes 0", "--episodes"),
        ("resume soud", "did you mean sound?"),
        ("resume sound --dir nowhere", "holds no runs yet"),
        ("resume .", "not a run folder"),
        ("resume " + "x" * 5000, "no run"),
        ("report soud", "did you mean sound?"),
        ("report runs/../garbage.bin", "not a run folder"),
        ("compare sound", "at least two"),
        ("compare sound soud", "did you mean sound?"),
        ("compare sound sound --out x.pdf", ".html or .png"),
        ("compare sound sound --out runs.html/x.png", "not a folder"),
        ("leaderboard", "missing argument"),
        ("leaderboard cndy", "did you mean candy?"),
        ("leaderboard CartPol-v1", "did you mean CartPole-v1?"),
        ("leaderboard candy env.siz=3", "did you mean size?"),
        ("leaderboard candy siz=3", "siz"),
        ("leaderboard bandit extra", "not key=value"),
        ("leaderboard bandit --agents pppo", "did you mean ppo?"),
        ("leaderboard bandit --agents random,pppo", "did you mean ppo?"),
        ("leaderboard bandit --agents ,", "name at least one"),
        ("leaderboard bandit agent.gamma=1", "such as ppo.gamma=1"),
        ("leaderboard bandit ppo.gama=1", "did you mean gamma?"),
        ("leaderboard bandit ppo.gamma=high", "gamma"),
        ("leaderboard bandit --agents random ppo.gamma=1", "does not take part"),
        ("leaderboard bandit --steps ten", "should be a number"),
        ("leaderboard bandit --steps 0", "steps"),
        ("leaderboard bandit --agents random --steps 100", "one update takes 2,048 steps"),
        ("leaderboard bandit --seeds 0", "--seeds"),
        ("leaderboard bandit --seeds 99999", "--seeds"),
        ("leaderboard bandit --seed -1", "--seed"),
        ("leaderboard bandit threads=2", "works on one core"),
        ("leaderboard bandit device=cuda", "one by one"),
        ("leaderboard bandit --name ../up", "run name"),
        ("leaderboard bandit --name sound", "a run of its own"),
        ("leaderboard bandit --out x.pdf", ".html or .png"),
        ("leaderboard bandit --out no/x.png", "no is not a folder"),
        ("eval random --env bandit --mode best", "invalid value for '--mode': 'best' is not one of 'greedy', 'sample'"),
        ("doctor --jsn", "--json"),
    ]
]
OTHERS += [
    Case(["eval", "a\0b"], "no run"), Case(["eval", ""], "no run"), Case(["resume", " "], "no run"),
    Case(["eval", "\x1b[31mred"], "no run"),
]  # fmt: skip

# --- damage to a run folder; each is tried with the commands that read that part


def forge(change: Callable[[dict[str, dict[str, Any]], dict[str, Any]], None]) -> Callable[[Path], None]:
    """A checkpoint whose sums are right and whose content is not."""

    def apply(run: Path) -> None:
        from gumdrop.store import checkpoint

        found = checkpoint.load(run)
        tensors, info = found.tensors, dict(found.info)
        change(tensors, info)
        shutil.rmtree(run / "checkpoints")
        checkpoint.save(run, found.step, tensors, info)

    return apply


def on_file(name: str, change: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Change one file of every checkpoint."""

    def apply(run: Path) -> None:
        paths = list(run.glob(f"checkpoints/step-*/{name}"))
        assert paths
        for path in paths:
            change(path)

    return apply


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def zip_with_pickle() -> bytes:
    """What torch.save would write, with the payload in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
        archive.writestr("archive/version", "3")
    return stream.getvalue()


def rename_in_sums(path: Path) -> None:
    path.write_text(path.read_text().replace("agent.safetensors", "../../../../garbage.bin"))


def _drop(name: str) -> Callable[[dict[str, dict[str, Any]], dict[str, Any]], None]:
    return lambda tensors, info: tensors["agent"].update() if tensors["agent"].pop(name).size else None


def _agent_rng(value: Any) -> Callable[[Path], None]:
    return forge(lambda tensors, info: tensors["agent"].update(rng=value))


def set_config(**changes: Any) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        from gumdrop.configs.loader import dump, read_run

        config = read_run(run / "config.yaml")
        (run / "config.yaml").write_text(dump(config.model_copy(update=changes)))

    return apply


CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "no folder": lambda run: shutil.rmtree(run / "checkpoints"),
    "a file instead of the folder": lambda run: (
        shutil.rmtree(run / "checkpoints"),
        (run / "checkpoints").write_bytes(b"x"),
    )[0],
    "empty folder": lambda run: (shutil.rmtree(run / "checkpoints"), (run / "checkpoints").mkdir())[0],
    "no tensors": on_file("agent.safetensors", Path.unlink),
    "no manifest": on_file("manifest.json", Path.unlink),
    "no sums": on_file("manifest.sha256", Path.unlink),
    "no info": on_file("info.json", Path.unlink),
    "empty tensors": on_file("agent.safetensors", lambda p: p.write_bytes(b"")),
    "empty manifest": on_file("manifest.json", lambda p: p.write_bytes(b"")),
    "empty info": on_file("info.json", lambda p: p.write_bytes(b"")),
    "empty sums": on_file("manifest.sha256", lambda p: p.write_bytes(b"")),
    "truncated tensors": on_file("agent.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-3])),
    "truncated env": on_file("env.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-3])),
    "flipped tensors": on_file("agent.safetensors", flip),
    "flipped env": on_file("env.safetensors", flip),
    "flipped manifest": on_file("manifest.json", flip),
    "flipped sums": on_file("manifest.sha256", flip),
    "flipped info": on_file("info.json", flip),
    "pickle for tensors": on_file("agent.safetensors", lambda p: p.write_bytes(pickle.dumps(Payload()))),
    "zip with a pickle for tensors": on_file("agent.safetensors", lambda p: p.write_bytes(zip_with_pickle())),
    "pickle for the manifest": on_file("manifest.json", lambda p: p.write_bytes(pickle.dumps(Payload()))),
    "pickle for the info": on_file("info.json", lambda p: p.write_bytes(pickle.dumps(Payload()))),
    "garbage": on_file("agent.safetensors", lambda p: p.write_bytes(bytes(range(256)) * 8)),
    "huge safetensors header": on_file("agent.safetensors", lambda p: p.write_bytes(b"\xff" * 8 + b"{}")),
    "nested manifest": on_file("manifest.json", lambda p: p.write_bytes(b"[" * 100_000)),
    "folder for tensors": on_file("agent.safetensors", as_folder),
    "folder for the manifest": on_file("manifest.json", as_folder),
    "link for tensors": on_file("agent.safetensors", lambda p: (p.unlink(), p.symlink_to("/dev/zero"))),
    "path traversal in the sums": on_file("manifest.sha256", rename_in_sums),
    "wrong dtype": _agent_rng(np.zeros(4, np.float32)),
    "wrong shape": _agent_rng(np.zeros(5, np.uint64)),
    "wrong rank": _agent_rng(np.zeros((), np.uint64)),
    "missing array": forge(_drop("rng")),
    "extra array": forge(lambda tensors, info: tensors["agent"].update(more=np.zeros(1))),
    "no agent": forge(lambda tensors, info: tensors.pop("agent") and None),
}
RESUMES: dict[str, Callable[[Path], None]] = {
    "no env": forge(lambda tensors, info: tensors.pop("env") and None),
    "env without its generator": forge(lambda tensors, info: tensors["env"].pop("engine.rng") is None or None),
    "env of another size": set_config(num_envs=3),
    "env of another world": set_config(env={"id": "candy"}),
    "another agent": set_config(agent={"name": "ppo"}),
    "no counters": forge(lambda tensors, info: info.clear()),
    "counters of another type": forge(lambda tensors, info: info.update(updates="many")),
    "offsets of another type": forge(lambda tensors, info: info.update(offsets=[1])),
    "finished": set_config(steps=8),
}
CONFIGS: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)),
    "pickle": pickle.dumps(Payload()),
    "tag": b"!!python/object/apply:os.system ['touch canary']",
    "list": b"- 1",
    "unknown key": b"stepz: 1",
    "unknown world": b"env: {id: bandti}\nagent: {name: random}",
    "unknown option": b"env: {id: bandit, armz: 2}\nagent: {name: random}",
    "unknown agent": b"env: {id: bandit}\nagent: {name: randm}",
}
JSONS: dict[str, bytes] = {
    "binary": bytes(range(256)),
    "list": b"[1]\n",
    "half": b'{"env_steps": 1',
    "nested": b"[" * 100_000 + b"\n",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one sound unfinished run and some bad files."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "garbage.bin").write_bytes(bytes(range(256)) * 4)
    (folder / "evil.pkl").write_bytes(pickle.dumps(Payload()))
    (folder / "evil.zip").write_bytes(zip_with_pickle())
    words = ["--env", "bandit", "--agent", "random", "steps=256", "num_envs=4", "--name", "sound", "--no-live"]
    assert main(["train", *words, "--dir", str(folder / "runs")]) == 0
    set_config(steps=1_000_000)(folder / "runs" / "sound")
    return folder


def tree(folder: Path) -> dict[str, str]:
    """Every path below `folder` with the hash of its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        plain = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if plain else "-"
    return found


def assert_refused(case: Case, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = tree(folder)
    capsys.readouterr()
    status = main(case.argv)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert tree(folder) == before, f"something was made, changed or executed: {err}"
    assert status == 2, err
    assert out == ""
    assert 1 <= len(lines) <= 3, err
    assert lines[0].startswith("gumdrop: ") and "Traceback" not in err
    assert all(len(line) <= 400 and line.isprintable() for line in lines)
    assert case.says.lower() in err.lower()


def short(case: Case) -> str:
    return " ".join(case.argv).encode("unicode_escape").decode()[:60]


@pytest.mark.parametrize("case", TRAIN + OTHERS, ids=short)
def test_command_lines(case: Case, bench: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(case, bench, capsys, monkeypatch)


@pytest.mark.parametrize(("text", "says"), FILES, ids=[repr(text[:30]) for text, _ in FILES])
def test_configuration_files(
    text: bytes, says: str, bench: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench / "case.yaml"
    path.write_bytes(text)
    assert_refused(Case(["train", "candy-ppo", "-c", "case.yaml"], says), bench, capsys, monkeypatch)
    path.unlink()


def copy_of(bench: Path, tmp_path: Path) -> Path:
    shutil.copytree(bench, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("damage", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_damaged_checkpoints(
    damage: Callable[[Path], None], bench: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = copy_of(bench, tmp_path)
    damage(folder / "runs" / "sound")
    for verb in ("resume", "eval", "rollout"):
        if verb == "resume" or damage is not CHECKPOINTS["truncated env"]:
            assert_refused(Case([verb, "sound"]), folder, capsys, monkeypatch)


@pytest.mark.parametrize("damage", RESUMES.values(), ids=RESUMES)
def test_checkpoints_that_do_not_fit_their_run(
    damage: Callable[[Path], None], bench: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = copy_of(bench, tmp_path)
    damage(folder / "runs" / "sound")
    assert_refused(Case(["resume", "sound"]), folder, capsys, monkeypatch)


@pytest.mark.parametrize("verb", ["resume", "eval", "rollout", "report", "compare"])
@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_damaged_configurations_of_runs(
    verb: str, text: bytes, bench: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if verb in ("report", "compare") and text.startswith(b"env: "):
        pytest.skip("what a run was remains readable where its world is gone")
    folder = copy_of(bench, tmp_path)
    (folder / "runs" / "sound" / "config.yaml").write_bytes(text)
    assert_refused(Case([verb, *["sound"] * (2 if verb == "compare" else 1)]), folder, capsys, monkeypatch)


@pytest.mark.parametrize(
    "text", [*CONFIGS.values(), *(f"seeds: {seeds}\n".encode() for seeds in ("[]", "3", "[1, 1]", "[-1]", "[true]", "[a]"))]
)
def test_damaged_configurations_of_groups(
    text: bytes, bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(bench, tmp_path)
    (folder / "runs" / "many").mkdir()
    (folder / "runs" / "many" / "group.yaml").write_bytes(text)
    assert_refused(Case(["resume", "many"]), folder, capsys, monkeypatch)
    for verb in ("eval", "rollout", "report"):
        assert_refused(Case([verb, "many"], "a group of runs; none of them has begun"), folder, capsys, monkeypatch)


@pytest.mark.parametrize("file", ["summary.json", "evaluation.json", "metrics.jsonl"])
@pytest.mark.parametrize("text", JSONS.values(), ids=JSONS)
def test_damaged_results_of_runs(
    file: str, text: bytes, bench: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if file == "metrics.jsonl" and text == JSONS["half"]:
        pytest.skip("a last line cut off by a kill is normal")
    folder = copy_of(bench, tmp_path)
    (folder / "runs" / "sound" / file).write_bytes(text)
    assert_refused(Case(["compare", "sound", "sound"]), folder, capsys, monkeypatch)


def group_of(folder: Path, name: str, seeds: int = 2) -> Path:
    """A finished group of seeds, each a copy of the sound run."""
    from gumdrop.configs.loader import dump_group, read_run

    sound = folder / "runs" / "sound"
    group = folder / "runs" / name
    group.mkdir()
    (group / "group.yaml").write_text(dump_group(read_run(sound / "config.yaml"), range(seeds)))
    for seed in range(seeds):
        shutil.copytree(sound, group / f"seed-{seed}")
    return group


GROUPS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "not evaluated": (lambda group: (group / "seed-1" / "evaluation.json").unlink(), "is not evaluated: `gumdrop eval"),
    "no summaries": (lambda group: [p.unlink() for p in group.glob("*/summary.json")], "none of its seeds is finished"),
    "no seeds": (lambda group: [shutil.rmtree(p) for p in group.glob("seed-*")], "none of its seeds is finished"),
    "no group.yaml": (lambda group: (group / "group.yaml").unlink(), "no run 'many'"),
    "garbled group.yaml": (lambda group: (group / "group.yaml").write_text("seeds: ["), "group.yaml"),
    "another world": (
        lambda group: (group / "group.yaml").write_text("env: {id: candy}\nagent: {name: random}\nseeds: [0, 1]\n"),
        "trained in candy, ",
    ),
    "another option": (
        lambda group: (group / "group.yaml").write_text("env: {id: bandit, arms: 3}\nagent: {name: random}\nseeds: [0, 1]\n"),
        "trained in bandit(arms=3), ",
    ),
    "not a number": (
        lambda group: (group / "seed-0" / "evaluation.json").write_text('{"agent": {"mean": NaN}}'), "no finite number"
    ),
}  # fmt: skip
for _file in ("summary.json", "evaluation.json"):
    for _name, _text in JSONS.items():
        GROUPS[f"{_name} {_file}"] = (lambda group, f=_file, t=_text: (group / "seed-1" / f).write_bytes(t), "damaged")  # type: ignore[misc]


@pytest.mark.parametrize("damage", GROUPS.values(), ids=GROUPS)
def test_damaged_groups_in_a_comparison(
    damage: tuple[Callable[[Path], None], str], bench: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = copy_of(bench, tmp_path)
    damage[0](group_of(folder, "many"))
    assert_refused(Case(["compare", "many", "sound"], damage[1]), folder, capsys, monkeypatch)


def test_the_sound_group_is_sound(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(bench, tmp_path)
    group_of(folder, "many")
    monkeypatch.chdir(folder)
    capsys.readouterr()
    assert main(["compare", "many", "sound", "--json"]) == 0
    assert [len(row["seeds"]) for row in json.loads(capsys.readouterr().out)["algorithms"]] == [2, 1]


def test_the_sound_run_is_sound(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the refusals above would prove nothing; and a sum over the payload shows that the canary works."""
    folder = copy_of(bench, tmp_path)
    monkeypatch.chdir(folder)
    set_config(steps=512)(folder / "runs" / "sound")
    capsys.readouterr()
    for argv in (["resume", "sound"], ["eval", "sound", "--episodes", "4"], ["compare", "sound", "sound"]):
        assert main([*argv, "--json"]) == 0
        assert isinstance(json.loads(capsys.readouterr().out), dict)
    assert not (folder / "canary").exists()
    pickle.loads((folder / "evil.pkl").read_bytes())  # our own payload, five lines above
    assert (folder / "canary").exists()


def test_there_are_enough_of_them() -> None:
    assert len(TRAIN) + len(OTHERS) + len(FILES) + 3 * len(CHECKPOINTS) + len(RESUMES) + 5 * len(CONFIGS) >= 200
    assert len({repr(case.argv) for case in TRAIN + OTHERS}) == len(TRAIN) + len(OTHERS)


@pytest.mark.parametrize(
    "argv",
    [
        ["trian"],
        ["train", "candy-ppo", "env.siz=3"],
        ["train", "-c", "evil.pkl"],
        ["train", "candy-ppo", "env.x=!!python/object/apply:os.system ['touch canary']"],
        ["resume", "sound", "--dir", "nowhere"],
    ],
    ids=" ".join,
)
def test_as_a_process(argv: list[str], bench: Path) -> None:
    before = tree(bench)
    done = subprocess.run(
        [sys.executable, "-m", "gumdrop.scripts.cli", *argv], cwd=bench, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stdout == ""
    assert 1 <= len(done.stderr.splitlines()) <= 3 and "Traceback" not in done.stderr
    assert tree(bench) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    assert_refused(Case(["train", "candy-ppo", "--dir", "shut"], "permission denied"), tmp_path, capsys, monkeypatch)
