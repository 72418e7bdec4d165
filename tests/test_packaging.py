"""What ships is what is here: no package forgotten, no data file left behind, imports one way."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("agents", "configs", "core_ml", "envs", "experiments", "native", "scripts", "store")


def test_every_package_is_listed() -> None:
    found = {"gumdrop"}
    for top in FOLDERS:
        for file in (ROOT / top).rglob("__init__.py"):
            found.add(".".join(["gumdrop", *file.parent.relative_to(ROOT).parts]))
        for file in (ROOT / top).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), f"{file} is in a folder without __init__.py"
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_the_tested_set_is_pinned() -> None:
    import re

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    wanted = [re.split(r"[<>=\[]", d)[0].lower() for d in PROJECT["project"]["dependencies"]]
    assert not set(wanted) - pinned
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text()


def test_the_wheel_holds_every_file(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {f"gumdrop/{name}" for name in tracked} - names
    assert not [n for n in names if n.startswith("gumdrop/tests") or ".typing" in n]
