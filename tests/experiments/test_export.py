"""Exported policies: every kind is written, run by onnxruntime along 1,000 observations, and does what the agent does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gumdrop as gd
from gumdrop.agents.deep import _exported as exported
from gumdrop.experiments.run import export as runtime
from gumdrop.experiments.run.export import ExportCheck, export_run
from gumdrop.scripts.cli import main

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fused": ("ppo", "cartpole", {}),
    "torch-cnn": ("ppo", "candy", {"network": "cnn"}),
    "continuous-normalised": ("ppo", "point-navigation", {"normalise_observation": True}),
    "two-agents": ("ppo", "coins", {}),
    "gru-fused": ("ppo", "t-maze", {"belief": "gru", "hidden": []}),
    "gru-actions": ("ppo", "cartpole", {"belief": {"name": "gru", "actions": True}, "hidden": [32], "learner": "torch"}),
    "gru-continuous": ("ppo", "point-navigation", {"belief": {"name": "gru", "actions": True}, "hidden": []}),
    "lstm": ("ppo", "t-maze", {"belief": "lstm"}),
    "tcn": ("ppo", "t-maze", {"belief": {"name": "tcn", "layers": 2, "width": 16}}),
    "transformer": ("ppo", "t-maze", {"belief": {"name": "transformer", "window": 4, "width": 16, "layers": 1}}),
    "frames": ("ppo", "t-maze", {"belief": "frames"}),
    "vae": ("ppo", "maze", {"encoder": {"name": "vae", "hidden": [32]}}),
    "vq-vae": ("ppo", "maze", {"encoder": {"name": "vq-vae", "hidden": [32]}}),
    "one-hot": ("ppo", "maze", {"encoder": "one-hot"}),
    "policy-gradient": ("policy-gradient", "cartpole", {}),
    "dqn-fused": ("dqn", "cartpole", {"learning_starts": 0}),
    "dqn-torch": ("dqn", "cartpole", {"dueling": True, "noisy": True, "quantiles": 4, "learning_starts": 0}),
    "dqn-ensemble": ("dqn", "cartpole", {"ensemble_size": 3, "learning_starts": 0}),
}


def trained(kind: str, folder: Path) -> Path:
    agent, env, options = KINDS[kind]
    run = gd.train(agent, env=env, steps=1024, num_envs=16, name=kind, directory=folder, progress=False, **options)
    return run.path


@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_does_what_the_agent_does(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    made = export_run(trained(kind, tmp_path))
    assert made.check is not None and made.check.observations >= 1_000
    assert made.check.actions_differ == 0 and made.check.difference <= 1e-5
    about = json.loads(made.sidecar.read_text())
    assert about["run"] == kind and about["inputs"][0]["name"] == "obs"
    import onnxruntime

    session = onnxruntime.InferenceSession(str(made.path))
    assert [x.name for x in session.get_inputs()] == [x["name"] for x in about["inputs"]]
    assert [x.name for x in session.get_outputs()] == about["outputs"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["gumdrop"]) == about
    for rows in (1, 7):  # the batch is free
        given = {x["name"]: np.zeros((rows, *x["shape"]), x["dtype"]) for x in about["inputs"]}
        assert all(len(x) == rows for x in session.run(None, given))


@pytest.mark.parametrize("kind", ["fused", "gru-fused", "dqn-fused", "continuous-normalised"])
def test_the_module_has_the_learners_own_outputs(kind: str, tmp_path: Path) -> None:
    """What the file is compared with is itself what the kernels compute."""
    import torch

    policy = gd.load(trained(kind, tmp_path)).policy
    agent: Any = policy.agent
    module = agent.policy_module()
    env = gd.make(KINDS[kind][1], num_envs=64)
    obs = env.reset(3)[:, 0].reshape(64, *module.shape).astype(np.uint8 if module.dtype == torch.uint8 else np.float32)
    memory = [x.expand(64, *x.shape[1:]).clone() for x in module.memory.values()]
    with torch.no_grad():
        said = module(torch.from_numpy(obs), *memory)[0].numpy()
    rows = obs.reshape(64, -1)
    if kind == "dqn-fused":
        wanted = agent.learner.q(rows)
    elif memory:
        wanted = agent.learner.outputs(
            rows, {k: x.numpy() for k, x in zip(module.memory, memory, strict=True)}, agent.actor.input.scale()
        )[0]
    else:
        wanted = agent.learner.outputs(rows, agent.actor.input.scale())[0]
    assert np.abs(said - wanted).max() <= 1e-5 and np.ptp(wanted) > 1e-4


def test_torch_export_is_a_file_for_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    path = trained("gru-fused", tmp_path)
    assert main(["export", str(path), "--to", "torch-export", "--out", str(tmp_path / "mine.pt2")]) == 0
    out = capsys.readouterr().out
    assert "checked on 1,000 observations: same greedy actions, largest difference" in out and "mine.json" in out
    extra = {"gumdrop.json": ""}
    module = torch.export.load(tmp_path / "mine.pt2", extra_files=extra).module()
    about = json.loads(extra["gumdrop.json"])
    assert about == json.loads((tmp_path / "mine.json").read_text())
    assert [x["name"] for x in about["inputs"]] == ["obs", "memory_h", "memory_action"]
    assert about["outputs"] == ["logits", "action", "next_h", "next_action"]
    found = module(*(torch.zeros(5, *x["shape"], dtype=getattr(torch, x["dtype"])) for x in about["inputs"]))
    assert [len(x) for x in found] == [5, 5, 5, 5]


def test_a_file_that_does_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the check: another scale of one parameter is found, and leaves nothing behind."""
    path = trained("fused", tmp_path)
    real = exported.actor_module

    def wrong(actor: Any) -> Any:
        module = real(actor)
        module.net.policy_head.weight *= -1
        return module

    monkeypatch.setattr(exported, "actor_module", wrong)
    before = sorted(x.name for x in path.iterdir())
    with pytest.raises(ValueError, match=r"policy.pt2 differs from the agent: \d+ of 1000 actions"):
        export_run(path, "torch-export")
    assert sorted(x.name for x in path.iterdir()) == before
    monkeypatch.setattr(runtime, "compare", lambda *_: ExportCheck(1000, 0, 2e-5))
    with pytest.raises(ValueError, match="outputs by 2e-05: nothing was written"):
        export_run(path, "torch-export")


@pytest.mark.parametrize(
    ("agent", "env", "options", "message"),
    [
        ("q-learning", "frozenlake", {}, "agent q-learning has no network to export: ppo, policy-gradient and dqn have"),
        ("ppo", "maze", {"encoder": "pca"}, "encoder pca is no network: vae, vq-vae, autoencoder and one-hot can be exported"),
        ("ppo", "corridor", {"belief": "hmm", "encoder": "one-hot"}, "agent ppo: belief hmm is no network"),
    ],
)
def test_what_is_no_network_is_refused(agent: str, env: str, options: Any, message: str, tmp_path: Path) -> None:
    run = gd.train(agent, env=env, steps=1024, num_envs=16, directory=tmp_path, progress=False, **options)
    with pytest.raises(ValueError) as found:
        run.export()
    assert message in str(found.value) and "\n" not in str(found.value)


def test_masks_are_not_left_out_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained("fused", tmp_path)
    real = runtime.make

    def masked(*args: Any, **kwargs: Any) -> Any:
        env = real(*args, **kwargs)
        monkeypatch.setattr(type(env), "action_mask", lambda self: np.ones((self.num_envs, 1, 2), np.bool_))
        return env

    monkeypatch.setattr(runtime, "make", masked)
    with pytest.raises(ValueError, match="environment cartpole has action masks: only policies without masks are exported"):
        export_run(path)


def test_formats_and_files_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = gd.load(trained("fused", tmp_path))
    for to, path, message in (
        ("torchscript", None, "torchscript is deprecated in torch: take --to torch-export, or onnx"),
        ("tflite", None, "no format 'tflite': known are onnx, torch-export"),
        ("onnx", tmp_path, "a folder, name a file"),
        ("onnx", tmp_path / "no" / "p.onnx", "its folder does not exist: make it first"),
    ):
        with pytest.raises(ValueError, match=message):
            run.export(path, to=to)
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"onnx needs onnxscript: `pip install gumdrop\[export\]`"):
        run.export()
