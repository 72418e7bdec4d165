"""`gumdrop leaderboard`: agents in one world under one budget, ranked."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import Json, Refused, RunsFolder, check_env, check_out, emit, figure, only_json, table
from .compare import ends, seeds_of, share, value
from .options import NoLive, PageOrPicture


def leaderboard(
    world: Annotated[str, typer.Argument(metavar="WORLD", help="Environment: ours, or any Gymnasium id.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="env.KEY of the world, AGENT.KEY of an agent, others of the runs.", show_default=False
        ),
    ] = None,
    agents: Annotated[str | None, typer.Option("--agents", metavar="A,B,C", help="Default: all that can play it.")] = None,
    steps: Annotated[str, typer.Option("--steps", metavar="N", help="Environment steps of each seed.")] = "100_000",
    seeds: Annotated[int, typer.Option("--seeds", metavar="K", min=1, max=10_000, help="Seeds of each agent.")] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**62, help="The first of them.")] = 0,
    name: Annotated[str | None, typer.Option("--name", help="Name of the folder; default: leaderboard-WORLD.")] = None,
    out: PageOrPicture = None,
    directory: RunsFolder = Path("runs"),
    json: Json = False,
    no_live: NoLive = False,
) -> None:
    """Train agents in one world with the same steps and seeds, evaluate and rank them; go on where it was stopped."""
    from ..agents.registry import agents as registered
    from ..configs.loader import parse_options, parse_value, resolve
    from ..configs.schema import check_name
    from ..experiments.run.signals import Interrupted

    if out is not None:
        check_out(out, (".html", ".png"))
    chosen = None if agents is None else [part.strip() for part in agents.split(",") if part.strip()]
    if chosen == []:
        raise Refused("--agents: name at least one (`gumdrop agent list` shows them)")
    own: dict[str, list[str]] = {}
    others = []
    for word in words or []:
        owner = word.partition("=")[0].partition(".")[0]
        if owner == "agent":
            raise Refused(f"{word!r:.80}: say which agent's, such as ppo.{word.partition('.')[2]:.60}")
        own.setdefault(owner, []).append(word) if owner in registered() and "." in word else others.append(word)
    flags = {"env": world, "seed": seed, "steps": parse_value(steps, "--steps")}
    base = resolve(None, None, others, flags)
    check_env(base.env_id, base.env_options)
    options = {agent: parse_options(its, f"{agent}.") for agent, its in own.items()}
    default = re.sub(r"[^\w.+=@-]+|\.\.+", "-", f"leaderboard-{base.env_id}")[:90].strip("-.")
    folder = directory / (default if name is None else check_name(name))
    from ..experiments.study.leaderboard import leaderboard as play
    from ..store.run_folder import RunFolder

    try:
        with only_json(json):
            board = play(base, range(seed, seed + seeds), folder, chosen, options, False if no_live else None)
    except Interrupted as stop:
        if json:
            emit({"folder": folder, "status": "interrupted"})
        print("stopped and saved: the same command goes on", file=sys.stderr)
        raise typer.Exit(stop.exit_code) from None
    document = board.document
    if out is not None and board.ranked:
        from ..experiments.report.compare_page import draw

        with only_json(json):
            draw(board.ranked, document, out, f"Leaderboard: {base.env_id}")
    if json:
        emit({"folder": folder, **document, "out": out})
    else:
        show(document)
        print(f"written: {RunFolder(folder).leaderboard_path}" + (f", {out}" if out and board.ranked else ""))
    unsound = [*document["failed"], *(row["name"] for row in document["algorithms"] if row["left_out"])]
    if unsound:
        print(f"failed in part or whole: {', '.join(unsound)}; the same command tries again", file=sys.stderr)
        raise typer.Exit(1)


def show(document: dict[str, Any]) -> None:
    """A ranked table for people."""
    rows = document["algorithms"]
    cells = [
        [f"{row['rank']}{'*' if row['overlaps_best'] else ''}", row["name"], value(row["iqm"]), ends(row["iqm"]),
         share(row["share_of_optimal"]), seeds_of(row), figure(row["env_steps"]), figure(row["seconds"], 1)]
        for row in rows
    ]  # fmt: skip
    table(cells, ("rank", "agent", "IQM", "95 %", "of optimal", "seeds", "steps", "seconds"))
    if sum(bool(row["overlaps_best"]) for row in rows) > 1:
        print("* the interval overlaps the best one's: more seeds could change the order")
    for note in document["notes"]:
        print(note, file=sys.stderr)
