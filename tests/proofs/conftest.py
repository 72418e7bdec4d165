"""`proof(name, figures)` writes docs/results/<name>.json: what a slow test measured, with commit, device and versions.

A key `headline`, a list of [what, figure] pairs, is what the page docs/results/README.md shows of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gumdrop.experiments.report.results_page import write_page
from gumdrop.experiments.run.machine import git_commit, processor, versions

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture
def proof() -> Callable[[str, dict[str, Any]], None]:
    def write(name: str, figures: dict[str, Any]) -> None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        document = {**figures, "git_commit": git_commit(), "device": processor(), "versions": versions()}
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
        write_page(RESULTS)

    return write
