"""The folder of a run: one place spells its files' names, and both tempers of reading."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from gumdrop.configs.schema import RunConfig
from gumdrop.store import names
from gumdrop.store.checkpoint import CheckpointError
from gumdrop.store.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
PACKAGE = ("agents", "configs", "core_ml", "envs", "experiments", "native", "scripts", "store")


def test_nobody_else_spells_a_files_name() -> None:
    """No string in the package, outside store/names.py, is a name of a run's file, or a path that ends with one."""
    spelled = [value for key, value in vars(names).items() if key.isupper() and "." in str(value)]
    spelled += [names.CHECKPOINTS, names.WANDB_ID]
    pattern = re.compile("|".join(rf"""["'/]{re.escape(name)}["']""" for name in spelled))
    found = []
    for folder in PACKAGE:
        for file in (ROOT / folder).rglob("*.py"):
            if file.name != "names.py" or file.parent.name != "store":
                lines = file.read_text().splitlines()
                found += [
                    f"{file.relative_to(ROOT)}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if pattern.search(line)
                ]
    assert not found, "\n".join(found)


def test_reading_and_writing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert not run.is_run and not run.is_group and run.make() and not run.make()
    run.write_config(RunConfig(seed=7))
    assert run.is_run and run.config().seed == 7 and not run.has_metrics
    run.write_summary({"status": "finished"})
    assert run.read_summary() == run.require_summary() == {"status": "finished"}
    assert run.read_evaluation() == run.require_evaluation() == {}
    (run.path / names.SUMMARY).write_text("{")
    notes: list[str] = []
    assert run.read_summary(notes) == {} and notes == ["summary.json is damaged and was left out."]
    with pytest.raises(ValueError, match="summary.json: damaged, not JSON"):
        run.require_summary()
    assert f"{run}" == str(run.path) and Path(run) == run.path


def test_a_folder_in_which_nothing_was_begun_goes(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(KeyError), run.alone():
        with pytest.raises(ValueError, match="another process"), RunFolder(run.path).lock():
            pass
        raise KeyError
    assert not run.path.exists()
    with run.alone():
        run.write_config(RunConfig())
    assert run.is_run


def test_checkpoints_by_name(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(CheckpointError, match="has no best checkpoint: train with eval_every=N"):
        run.checkpoint("best")
    for step in (10, 20, 30, 40):
        run.save(step, {"agent": {"x": np.array(step)}}, {}, keep=2)
        if step == 20:
            run.mark_best(20)
    assert run.checkpoint().step == 40 and run.checkpoint("30").step == 30
    assert run.checkpoint("best").step == run.checkpoint("deploy").step == 20  # it stays beside the two newest
    with pytest.raises(CheckpointError, match="no checkpoint of 10 steps: there are 20, 30, 40"):
        run.checkpoint("10")
    with pytest.raises(CheckpointError, match="name latest, best or a number"):
        run.checkpoint("newest")
    run.mark_best(30)
    run.save(50, {"agent": {"x": np.array(50)}}, {}, keep=1)
    assert run.checkpoint("best").step == 30 and not (tmp_path / names.CHECKPOINTS / "step-000000000020").exists()
    run.mark_best(None)
    assert run.checkpoint("deploy").step == 50
