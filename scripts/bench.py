"""`gumdrop bench`: how fast worlds and training are here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .common import Json, Refused, check_env, emit, figure, only_json, table


def env(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Worlds; all of them without.", show_default=False),
    ] = None,
    num_envs: Annotated[int, typer.Option("--num-envs", min=1, max=2**20, help="Environments that step together.")] = 4096,
    threads: Annotated[list[int] | None, typer.Option("--threads", min=1, max=1024, help="Thread counts to measure.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, max=600, help="For each figure.")] = 1.0,
    vs: Annotated[
        str | None, typer.Option("--vs", metavar="NAMES", help="Also measure minigrid,gymnasium,envpool,pufferlib,gymnax.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    json: Json = False,
) -> None:
    """Measure steps a second of worlds under random actions, in turns with other packages' environments."""
    for id in ids or []:
        check_env(id, {})
    from ..experiments.bench.baselines import BASELINES
    from ..experiments.bench.bench import bench_env, way_name

    packages = _packages(vs, [*BASELINES])
    with only_json(json):
        result = bench_env(ids, num_envs, threads or [1, 2], seconds, packages, device)
    if json:
        emit(result)
        return
    ways = [*dict.fromkeys(way for row in result["worlds"] for way in row["steps_per_second"])]
    table(_rates(result["worlds"], ways), ("world", "options", "agents", *map(way_name, ways)))
    if packages:
        print()
        rows = [[f"view of {id}, 1 copy", figure(v, 0), "", ""] for id, v in result["single_copy_view"].items()]
        for other in result["baselines"]:
            what = f"{other['package']} {other['environment']}, {other['num_envs']} environment{'s' * (other['num_envs'] > 1)}"
            rows.append([what, figure(other["steps_per_second"], 0), f"{other['times_faster']:.1f}x", other["ours"]])
        table(rows, ("in turns with them", "steps/s", "ours is faster", "ours"))
        for name, reason in result["not_measured"].items():
            print(f"{name}: {reason}")


def _packages(vs: str | None, known: list[str]) -> list[str]:
    """The names in `--vs`."""
    from ..configs.suggest import suggest

    names = [name.strip() for name in vs.split(",")] if vs else []
    for name in names:
        if name not in known:
            raise Refused(f"--vs {name!r:.80}{suggest(name, known)}")
    return names


def _rates(rows: list[dict[str, Any]], ways: list[str]) -> list[list[object]]:
    """World, options, agents, and for each of `ways` steps per second; agent steps where there are several agents."""
    out: list[list[object]] = []
    for row in rows:
        options = " ".join(f"{key}={value}" for key, value in row["options"].items())
        figures = row.get("agent_steps_per_second", row["steps_per_second"])
        unit = " agent steps/s" if row["agents"] > 1 else " steps/s"
        out.append(
            [row["world"], options, row["agents"], *(figure(figures[w], 0) + unit if w in figures else "" for w in ways)]
        )
    return out


def train(
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=3600, help="For each side.")] = 20.0,
    baseline: Annotated[bool, typer.Option(help="Also measure stable-baselines3, alternately.")] = True,
    vs: Annotated[
        str | None, typer.Option("--vs", metavar="NAMES", help="Also measure skrl,rsl_rl on our engine, alternately.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu; or cuda: only world and learner on a GPU.")] = "cpu",
    json: Json = False,
) -> None:
    """Measure PPO training in environment steps a second, learning included, in turns with other packages' PPO."""
    from ..experiments.bench.baselines_train import BASELINES
    from ..experiments.bench.bench import bench_device, bench_train

    packages = _packages(vs, [*BASELINES])
    if device != "cpu":
        if packages:
            raise Refused(f"--vs {vs}: other packages' PPO is measured on the processor only: leave out --device")
        with only_json(json):
            result = bench_device(seconds=seconds, device=device)
        _print(result, json)
        return
    with only_json(json):
        result = bench_train(seconds=seconds, baseline=baseline, vs=packages)
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
