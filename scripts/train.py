"""`gumdrop train`: make a run folder and train an agent in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from . import complete
from .common import Json, Plugins, Refused, RunsFolder, check_agent, check_env, emit, figure, only_json, split_words, table
from .options import NoLive

Report = Annotated[bool, typer.Option("--report/--no-report", help="Then evaluate, draw an episode and write report.html.")]


def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PRESET|KEY=VALUE",
            help="A preset, and changes such as env.size=7.",
            autocompletion=complete.presets,
            show_default=False,
        ),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(
            "--env",
            metavar="ID",
            help="Environment: ours, or any Gymnasium id.",
            autocompletion=complete.worlds,
        ),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent",
            metavar="NAME",
            help="Agent.",
            autocompletion=complete.agents,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option("-c", "--config", metavar="FILE", help="YAML file over the preset.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")] = None,
    steps: Annotated[str | None, typer.Option("--steps", metavar="N", help="Environment steps, e.g. 2e6.")] = None,
    num_envs: Annotated[int | None, typer.Option("--num-envs", metavar="N", help="Environments that step together.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run folder.")] = None,
    directory: RunsFolder = Path("runs"),
    plugin: Plugins = None,
    track: Annotated[list[str] | None, typer.Option("--track", help="wandb or tensorboard, beside the files.")] = None,
    json: Json = False,
    no_live: NoLive = False,
    report: Report = True,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            metavar="K",
            min=1,
            max=10_000,
            help="Train K seeds, from --seed on, one on each core; evaluate each.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train an agent from a preset or from --env and --agent; the run folder holds everything."""
    from ..configs.loader import parse_value, presets, resolve
    from ..configs.schema import check_name
    from ..envs.names import load_plugin_files

    preset, overrides = split_words(words or [], "preset")
    if preset is None and env is None and config is None:
        raise Refused(f"train what? name a preset ({', '.join(presets())}), --env ID or -c FILE")
    flags = {
        "env": env,
        "agent": agent,
        "seed": seed,
        "steps": None if steps is None else parse_value(steps, "--steps"),
        "num_envs": num_envs,
        "name": None if name is None else check_name(name),
        "track": track or None,
        "plugins": [str(path) for path in plugin or []] or None,
    }
    resolved = resolve(preset, config, overrides, flags)
    load_plugin_files(resolved.plugins)
    options = dict(resolved.env)
    id = options.pop("id")
    check_env(id, options)
    options = dict(resolved.agent)
    agent_name = options.pop("name")
    check_agent(agent_name, options)
    from ..experiments.run.new_folder import new_folder

    default = preset if preset and not env and not agent else f"{id}-{agent_name}"
    folder = new_folder(directory, resolved.name, default)
    from ..experiments.run import train as runtime
    from ..store.run_folder import RunFolder

    resolved = resolved.model_copy(update={"name": folder.name})
    live = False if no_live else None
    try:
        if seeds is None:
            finish(folder, lambda: runtime.train(resolved, folder, live), json, report)
        else:
            from ..experiments.run.group import train_group

            numbers = range(resolved.seed, resolved.seed + seeds)
            finish_group(folder, lambda: train_group(resolved, numbers, folder, live, evaluate=report), json)
    finally:
        RunFolder(folder).remove_unused()  # refused before anything was begun


def finish(folder: Path, work: Callable[[], dict[str, Any]], json: bool, report: bool) -> None:
    """Do the training and print its result."""

    def whole() -> tuple[dict[str, Any], dict[str, Any] | None]:
        summary = work()
        if report:
            print("evaluating ...", file=sys.stderr)
        return summary, conclude(folder) if report else None

    summary, evaluation = _unless_stopped(folder, whole, json)
    if json:
        emit({"run": str(folder), **summary, **({"evaluation": evaluation} if evaluation else {})})
        return
    steps, seconds = summary.get("env_steps"), summary.get("seconds")
    speed = f", {steps / seconds:,.0f} a second" if steps and seconds else ""
    print(f"{summary.get('status', 'finished')}: {figure(steps)} steps in {figure(seconds, 1)} s{speed}")
    if "best_return" in summary:
        early = "; stopped early" if summary.get("stopped_early") else ""
        best = f"{figure(summary['best_return'])} at {figure(summary['best_env_steps'])} steps"
        print(f"best:     {best} on held-out episodes{early} (gumdrop eval {folder} --checkpoint best)")
    if evaluation:
        from .eval import show

        show(evaluation)
    print(f"run folder: {folder}")
    if evaluation:
        from ..store.run_folder import RunFolder

        run = RunFolder(folder)
        print(f"report:     {run.report_path} (opens in any browser)\nanimation:  {run.animation_path}")
        print(f"next:       gumdrop rollout {folder} --seed 5, gumdrop compare {folder} OTHER --out compare.html")
    else:
        print(f"next:       gumdrop eval {folder}, gumdrop rollout {folder}, gumdrop report {folder}")


def finish_group(folder: Path, work: Callable[[], dict[str, Any]], json: bool) -> None:
    """Train many seeds and print what came out; exit status 1 if any failed."""
    document = _unless_stopped(folder, work, json)
    rows = document["seeds"]
    if json:
        emit({"run": str(folder), **document})
    else:
        cells = [
            (row["run"], row["status"], figure(row["env_steps"]), figure(row["seconds"], 1), figure(row["return"]),
             _percent(row["share_of_optimal"]))
            for row in rows
        ]  # fmt: skip
        table(cells, ("run", "status", "steps", "seconds", "return", "of optimal"))
        for name, show in (("return", figure), ("share_of_optimal", _percent)):
            if over := document[name]:
                low, high = over["ci95"] or (None, None)
                interval = f" (95 %: {show(low)} to {show(high)}, {document['interval']})" if over["ci95"] else ""
                print(f"mean {name.replace('_', ' ')} {show(over['mean'])}{interval}")
        print(f"run folder: {folder}")
        print(f"next:       gumdrop rollout {folder / rows[0]['run']}, gumdrop report {folder / rows[0]['run']}")
    failed = sum(row["status"] == "failed" for row in rows)
    if failed:
        print(f"{failed} of {len(rows)} seeds failed: `gumdrop resume {folder}` goes on with them", file=sys.stderr)
        raise typer.Exit(1)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


T = TypeVar("T")


def _unless_stopped(folder: Path, work: Callable[[], T], json: bool) -> T:
    """Do the work; an interruption becomes one line and its exit status."""
    from ..experiments.run.signals import Interrupted

    try:
        with only_json(json):
            return work()
    except Interrupted as stop:
        if json:
            emit({"run": str(folder), "status": "interrupted"})
        print(f"stopped and saved: `gumdrop resume {folder}` goes on", file=sys.stderr)
        raise typer.Exit(stop.exit_code) from None


def conclude(folder: Path) -> dict[str, Any]:
    """Evaluate a finished run, draw episodes to episode.gif, write report.html. Returns the evaluation."""
    from ..envs.draw import render
    from ..experiments.report.run_page import write_report
    from ..experiments.run.evaluate import evaluate_run
    from ..experiments.run.rollout import film
    from ..store.run_folder import RunFolder

    evaluation = evaluate_run(folder)
    frames, fps = film(RunFolder(folder), evaluation["length_mean"])
    render.save_animation(frames, RunFolder(folder).animation_path, fps)
    write_report(folder)
    return evaluation
