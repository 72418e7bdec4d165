"""Runs that were begun before the files moved and options got the field's names: they load, and go on to the same bits.

`tests/fixtures/version_0_1` holds one interrupted run of each kind, written by commit 3b5ab51, and the digests of what that
commit made of it when it went on to the end. Equal bits are promised for one kind of processor: elsewhere only runs without
floating-point learning are compared bit for bit, and of the others that they go on and end.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from gumdrop.configs.loader import read_run
from gumdrop.experiments.run import train
from gumdrop.experiments.run.evaluate import evaluate_run
from gumdrop.store.renamed import current_name

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1"
DIGESTS: dict[str, Any] = json.loads((FIXTURES / "digests.json").read_text())
EXACT = ("thompson", "q-learning", "sarsa")  # counts, and float64 sums in a fixed order: the same on every processor
METRICS = {  # metrics that have other names now
    "epochs": "update_epochs", "loss/going_on": "loss/continue",
    "dream_return": "imagined_return", "behaviour_grad_norm": "actor_critic_grad_norm",
}  # fmt: skip


def processor() -> str:
    """The processor's kind and a hash of its features: what numba compiles for."""
    from llvmlite import binding

    features = binding.get_host_cpu_features().flatten()
    return f"{binding.get_host_cpu_name()} {hashlib.sha256(features.encode()).hexdigest()[:12]}"


def tensors_of(folder: Path) -> dict[str, str]:
    """Digest of each array in the newest checkpoint, by file and name."""
    newest = max(path for path in (folder / "checkpoints").iterdir() if path.name.startswith("step-"))
    found = {}
    for file in sorted(newest.glob("*.safetensors")):
        with safe_open(file, "np") as arrays:
            for name in arrays.keys():
                array = arrays.get_tensor(name)
                digest = hashlib.sha256(str((array.dtype, array.shape)).encode() + array.tobytes())
                found[f"{file.stem}:{name}"] = digest.hexdigest()[:16]
    return found


def metrics_of(folder: Path) -> dict[str, str]:
    """Digest of each metric's whole series."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = sorted({name for row in rows for name in row})
    return {name: hashlib.sha256(json.dumps([row.get(name) for row in rows]).encode()).hexdigest()[:16] for name in names}


def metric_now(name: str) -> str:
    """The name that a metric of an older run has now."""
    return METRICS.get(name, name).replace("bonus/inverse-dynamics", "bonus/icm")


def now(tensors: dict[str, str]) -> dict[str, str]:
    """Digests of an older checkpoint's arrays under the names of now."""
    return {f"{file}:{current_name(array)}": tensors[name] for name in tensors for file, _, array in [name.partition(":")]}


@pytest.mark.parametrize("kind", DIGESTS["runs"])
def test_an_older_run_goes_on_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / kind
    shutil.copytree(FIXTURES / kind, folder)
    before = (folder / "metrics.jsonl").read_bytes()
    train.train(read_run(folder / "config.yaml"), folder, live=False, resume=True)

    written = (folder / "metrics.jsonl").read_bytes()
    assert written.startswith(before) and len(written) > len(before)
    expected = DIGESTS["runs"][kind]
    arrays = now(expected["tensors"])
    tensors, metrics = tensors_of(folder), metrics_of(folder)
    assert tensors.keys() == arrays.keys()
    # A run that goes on says new names from there on; the older rows keep theirs.
    assert len(written.splitlines()) == expected["rows"]
    if processor() == DIGESTS["processor"] or kind in EXACT:
        assert tensors == arrays
        same = {name: digest for name, digest in expected["metrics"].items() if metric_now(name) == name}
        assert {name: metrics[name] for name in same} == same
    returns = evaluate_run(folder, episodes=4)["agent"]["returns"]
    assert np.isfinite(returns).all()


def test_old_names_are_translated_with_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    from gumdrop.configs import renamed

    renamed._say.cache_clear()
    config = read_run(FIXTURES / "dqn" / "config.yaml")
    assert config.agent_options["buffer_size"] == 128 and config.agent_options["ensemble_size"] == 2
    assert not {"capacity", "heads", "prior", "target_every"} & config.agent_options.keys()
    said = capfd.readouterr().err
    assert "config.yaml: agent.capacity is called agent.buffer_size now" in said
    with pytest.raises(ValueError, match="the same option"):
        renamed.current({"agent": {"name": "ppo", "epochs": 3, "update_epochs": 3}})
