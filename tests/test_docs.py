"""Every command and Python block of README and guides runs, and every link leads somewhere; long trainings are cut short."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gumdrop.scripts.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GUIDES = ("*.md", "worlds/*.md", "agents/*.md", "howto/*.md", "reference/*.md")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(page for pattern in GUIDES for page in sorted(DOCS.glob(pattern)))]
LINKED = [*PAGES, *sorted(DOCS.glob("decisions/*.md")), DOCS / "results/README.md", ROOT / "examples/plugin/README.md"]
SHORT = {  # put behind every `gumdrop train` and `gumdrop bench`
    "train": ["--steps", "16384", "eval_episodes=20"],
    "bench": ["--seconds", "1"],
}
FEW = ["--seeds", "3"]  # and behind a training of many seeds
WIDTH = 120


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def with_blocks(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


@pytest.mark.parametrize("page", with_blocks("bash"), ids=named)
def test_commands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for command in commands(page):
        if command[0] == "make":
            done = subprocess.run(["make", "-n", *command[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            continue
        assert command[0] == "gumdrop", command
        words = command[1:] + SHORT.get(command[1], []) + (FEW if command[1] == "train" and "--seeds" in command else [])
        status = main(words)
        assert status == 0, f"{' '.join(command)}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", with_blocks("python"), ids=named)
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gumdrop.core_ml import component
    from gumdrop.envs import registry
    from gumdrop.envs.checks.conformance import check_world
    from gumdrop.envs.examine import solution as solve
    from gumdrop.envs.make import make

    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "docs_example"}  # later blocks go on from earlier ones
    registered = dict(component._COMPONENTS)
    try:
        for block in blocks(page, "python"):
            exec(compile(block, page.name, "exec"), names)
        if page.name == "world.md":
            env = make("hallway", {"length": 3}, num_envs=2)
            assert env.step([[1], [0]]).obs[:, 0, 0].tolist() == [0.5, 0.0]
            world = env.world  # type: ignore[attr-defined]
            hallway = type(world)
            hallway.scene, hallway.model = names["scene"], names["model"]  # type: ignore[method-assign, assignment]
            assert solve.yardstick(world, env.state).optimal.tolist() == [1, 1]  # type: ignore[union-attr, attr-defined]
            assert all(check.ok for check in check_world("hallway"))
    finally:
        registry._WORLDS.pop("hallway", None)
        for key in component._COMPONENTS.keys() - registered.keys():
            if getattr(component._COMPONENTS[key].cls, "__module__", "") == "docs_example":
                del component._COMPONENTS[key]


# ---- links ----


def prose(page: Path) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as code hosts and Python-Markdown make them."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in found}


@pytest.mark.parametrize("page", LINKED, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", prose(page)):
        path, _, anchor = (target[0] or target[1]).partition("#")
        if path.startswith("https://"):
            continue
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{named(page)}: {path} is not there"
        assert ROOT in found.parents, f"{named(page)}: {path} is outside of the repository"
        if anchor:
            assert anchor in anchors(found), f"{named(page)}: {path} has no heading #{anchor}"


def test_a_page_of_the_site_links_to_pages_of_the_site() -> None:
    for page in LINKED:
        for path in re.findall(r"\]\(([^)\s#]+)[^)]*\)", prose(page)):
            if DOCS in page.parents and not path.startswith("https://"):
                assert DOCS in (page.parent / path).resolve().parents, f"{named(page)}: {path} is not on the site"


def test_every_page_is_in_the_navigation() -> None:
    listed = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        if DOCS in page.parents:
            assert page.relative_to(DOCS).as_posix() in listed, f"{named(page)} is not in mkdocs.yml: nobody finds it"


# ---- style ----


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_lines_are_short(page: Path) -> None:
    text = re.sub(r"```.*?```", lambda block: "\n" * block.group().count("\n"), page.read_text(), flags=re.DOTALL)
    for number, line in enumerate(text.splitlines(), 1):
        one_sentence = not re.search(r"[.!?:] [A-Z]", line)
        assert len(line) <= WIDTH or one_sentence or line.startswith(("|", "<", "![")), f"{named(page)}:{number}: {len(line)}"


# ---- the site ----


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-4000:]

    from gumdrop.agents.registry import agents

    for name, cls in agents().items():
        if cls.__module__.startswith("gumdrop.agents."):
            page = (tmp_path / f"site/agents/{name}.html").read_text()
            for option in cls.Config.model_fields:
                assert f"<code>{option}</code>" in page, f"agents/{name}.html does not tell option {option}"
    fetched = r"<(?:script|img|iframe)[^>]+src=\"?https?://|<link[^>]+stylesheet[^>]+https?://|@import url\(http"
    for page_path in (tmp_path / "site").rglob("*.html"):
        assert not re.search(fetched, page_path.read_text()), f"{page_path.name} fetches something from the network"


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / ".typing")}
