"""The plugin in `examples/plugin`, installed as a stranger's package is: found, checked, solved, trained on, or broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin installed by pip, from an environment: builds leave files behind."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, "--target", str(folder / "site"), str(folder / "source")], check=True, capture_output=True)
    return folder / "site"


def run(site: Path, *words: str, module: str = "gumdrop.scripts.cli") -> subprocess.CompletedProcess[str]:
    code = ["-c", "import sys; from gumdrop.scripts.cli import main; sys.exit(main(sys.argv[1:]))"]
    command = [sys.executable, *(code if module == "gumdrop.scripts.cli" else ["-m", module]), *words]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, cwd=site.parent)


def test_the_module_is_small() -> None:
    assert len((PLUGIN / "gumdrop_ferry.py").read_text().splitlines()) <= 60


def test_the_world_is_listed_and_keeps_its_contract(site: Path) -> None:
    listed = run(site, "env", "list")
    assert any(line.split()[:4] == ["ferry", "float32", "(4,)", "4"] for line in listed.stdout.splitlines()), listed
    checked = run(site, "env", "check", "ferry", "env.wind=0.3")
    assert checked.returncode == 0 and "ferry: all of 17 checks hold" in checked.stdout, checked


def test_the_world_is_solved(site: Path) -> None:
    solved = run(site, "env", "solve", "ferry")
    assert solved.returncode == 0 and "optimal  1.000000" in solved.stdout, solved


def test_its_own_tests_pass(site: Path) -> None:
    tests = run(site, "-q", "-p", "no:cacheprovider", str(PLUGIN / "tests"), module="pytest")
    assert tests.returncode == 0, tests.stdout


def test_a_broken_plugin_harms_nothing(site: Path, tmp_path: Path) -> None:
    broken = tmp_path / "site"
    shutil.copytree(site, broken)
    (broken / "gumdrop_ferry.py").write_text("import a_package_that_nobody_has\n")
    listed = run(broken, "env", "list")
    reason = "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"
    assert listed.returncode == 0 and f"broken plugin ferry: {reason}" in listed.stdout, listed
    assert any(line.startswith("candy ") for line in listed.stdout.splitlines())
    asked = run(broken, "env", "check", "ferry")
    assert asked.returncode == 2 and reason in asked.stderr and len(asked.stderr.splitlines()) == 1, asked
