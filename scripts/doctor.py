"""`gumdrop doctor`: is this machine fit, and what to do where it is not."""

from __future__ import annotations

import typer

from .common import Json, emit, only_json, table


def doctor(json: Json = False) -> None:
    """Check versions, threads, GPU, W&B and kernel cache, and test a world and a checkpoint."""
    from ..experiments.doctor import doctor as examine

    with only_json(json):
        result = examine()
    if json:
        emit(result)
    else:
        rows = []
        for check in result["checks"]:
            rows.append(
                [
                    check["status"],
                    check["name"],
                    check["detail"] + (f"; {check['fix']}" if check["fix"] else ""),
                ]
            )
        table(rows)
    if not result["ok"]:
        raise typer.Exit(1)
