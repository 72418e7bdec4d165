"""`gumdrop bench`: how fast worlds and training are here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .common import Json, check_env, emit, figure, only_json, table


def env(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Worlds; all of them without.", show_default=False),
    ] = None,
    copies: Annotated[int, typer.Option("--copies", min=1, max=2**20, help="Copies that step together.")] = 4096,
    threads: Annotated[list[int] | None, typer.Option("--threads", min=1, max=1024, help="Thread counts to measure.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, max=600, help="For each figure.")] = 1.0,
    json: Json = False,
) -> None:
    """Measure steps a second of worlds under random actions."""
    from ..envs import registry

    chosen = ids or [*registry.worlds()]
    for id in chosen:
        check_env(id, {})
    from ..agents.runtime.bench import bench_env

    with only_json(json):
        result = bench_env(chosen, copies, threads or [1, 2], seconds)
    _print(result, json)


def train(
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=3600, help="For each side.")] = 20.0,
    baseline: Annotated[bool, typer.Option(help="Also measure stable-baselines3, alternately.")] = True,
    json: Json = False,
) -> None:
    """Measure PPO training in environment steps a second, learning included."""
    from ..agents.runtime.bench import bench_train

    with only_json(json):
        result = bench_train(seconds=seconds, baseline=baseline)
    _print(result, json)


def _print(result: dict[str, Any], json: bool) -> None:
    """Nested figures as indented lines."""
    if json:
        emit(result)
    else:
        table(_lines(result, 0))


def _lines(value: dict[str, Any], depth: int) -> list[list[str]]:
    rows = []
    for key, item in value.items():
        name = "  " * depth + str(key).replace("_", " ")
        if isinstance(item, dict):
            rows += [[name, ""], *_lines(item, depth + 1)]
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            for one in item:
                rows += [[name, ""], *_lines(one, depth + 1)]
        else:
            big = isinstance(item, float) and abs(item) >= 1000
            rows.append([name, figure(item, 0 if big else 3) if isinstance(item, (int, float)) else str(item)])
    return rows
