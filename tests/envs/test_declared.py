"""Names of worlds read without importing them, however their files are written; and the finder that waits for Gymnasium."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gumdrop.envs import registry
from gumdrop.envs.declared import declared_worlds

REGISTERED = {*registry.worlds(), *registry.presets()}


def test_what_is_declared_is_what_is_registered() -> None:
    assert set(declared_worlds()) == REGISTERED


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("@world('lava')\nclass Lava: pass\n", {"lava"}),
        ('if True:\n\n    @registry.world(name="lava")\n    class Lava: pass\n', {"lava"}),
        ("@world(\n    '''lava'''\n)\n@frozen\nclass Lava: pass\n", {"lava"}),
        ("@world('lava')\nclass Lava:\n  presets: dict = {'cold-lava': 1, **M}\nM = {'x': 1}\n", {"lava", "cold-lava", "x"}),
        ("from .more import NAMED as MINE\n@world('lava')\nclass Lava:\n  presets = MINE | {'y': 2}\n", {"lava", "x", "y"}),
        ("from . import more\n@world('lava')\nclass Lava:\n  presets = more.NAMED\n", {"lava", "x"}),
        ("# @world('no')\nTEXT = \"@world('no')\"\n@other('no')\nclass Lava: pass\n", set()),
    ],
)  # fmt: skip
def test_a_world_is_found_however_it_is_written(source: str, names: set[str], tmp_path: Path) -> None:
    (tmp_path / "lava.py").write_text(source)
    (tmp_path / "more.py").write_text("NAMED = {'x': 1}\n")
    assert set(declared_worlds(tmp_path)) == names


@pytest.mark.parametrize(
    "source",
    [
        "@world('la' + 'va')\nclass Lava: pass\n",
        "@world('lava')\nclass Lava:\n  presets = made()\n",
        "from elsewhere import P\n@world('lava')\nclass Lava:\n  presets = P\n",
        "@world('lava'\n",
    ],
)
def test_what_a_tree_does_not_show_is_imported(source: str, tmp_path: Path) -> None:
    (tmp_path / "lava.py").write_text(source)
    assert set(declared_worlds(tmp_path)) == REGISTERED


def test_gymnasium_keeps_its_own_loader_and_the_finder_goes() -> None:
    code = (
        "import sys, gumdrop; n = len(sys.meta_path); import gymnasium\n"
        "from importlib.machinery import SourceFileLoader as L\n"
        "assert type(gymnasium.__loader__) is L and type(gymnasium.__spec__.loader) is L and len(sys.meta_path) == n - 1\n"
        "import importlib; importlib.reload(gymnasium)\n"
        "assert gymnasium.spec('gumdrop/PointMaze-v0').kwargs == {'world': 'point-maze'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_world_declared_anywhere_has_its_gymnasium_id() -> None:
    code = (
        "import gymnasium, gumdrop; from gumdrop.envs.worlds.corridor import Corridor as C\n"
        "from gumdrop.envs.registry import world\n"
        "world('mine')(type('Mine', (C,), {'presets': {}}))\n"
        "assert gymnasium.make('gumdrop/Mine-v0').unwrapped.engine.world.name == 'mine'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
