"""`gumdrop ablate`: what a part of an agent contributes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .common import Json, Refused, RunsFolder, check_agent, check_env, check_out, emit, figure, only_json, split_words, table
from .compare import ends, seeds_of, share, value
from .options import NoLive, PageOrPicture


def ablate(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="PRESET|KEY=VALUE", help="A preset, and changes such as agent.belief=gru.", show_default=False),
    ] = None,
    slot: Annotated[
        str | None, typer.Option("--slot", metavar="SLOT", help="Which part; default: the only one that the agent has.")
    ] = None,
    arms: Annotated[
        str, typer.Option("--arms", metavar="A,B,C", help="What is compared, with the first.")
    ] = "trained,untrained,none",
    others: Annotated[
        str | None, typer.Option("--also", metavar="NAME,NAME", help="More arms: other components in the slot, as they come.")
    ] = None,
    config: Annotated[Path | None, typer.Option("-c", "--config", metavar="FILE", help="YAML file over the preset.")] = None,
    steps: Annotated[str | None, typer.Option("--steps", metavar="N", help="Environment steps of each seed.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="K", min=1, max=10_000, help="Seeds of each arm.")] = 5,
    name: Annotated[str | None, typer.Option("--name", help="Name of the folder; default: ablate-PRESET-SLOT.")] = None,
    out: PageOrPicture = None,
    directory: RunsFolder = Path("runs"),
    json: Json = False,
    no_live: NoLive = False,
) -> None:
    """Train an agent with a part, with it untrained and without it, over seeds; go on where it was stopped."""
    from ..configs.loader import parse_value, presets, resolve
    from ..configs.schema import check_name
    from ..experiments.run.signals import Interrupted
    from ..experiments.study import ablate as runtime
    from ..store.run_folder import RunFolder

    if out is not None:
        check_out(out, (".html", ".png"))
    preset, overrides = split_words(words or [], "preset")
    if preset is None and config is None and not overrides:
        raise Refused(f"ablate what? name a preset ({', '.join(presets())}), KEY=VALUE or -c FILE")
    resolved = resolve(preset, config, overrides, {"steps": None if steps is None else parse_value(steps, "--steps")})
    check_env(resolved.env_id, resolved.env_options)
    check_agent(resolved.agent_name, resolved.agent_options)
    filled = runtime.slots_of(resolved)
    if slot is None:
        if len(filled) != 1:
            has = f"it has {', '.join(filled)}: name one with --slot" if filled else "no slot of it is filled"
            raise Refused(f"agent {resolved.agent_name}: which part? {has}")
        slot = next(iter(filled))
    also = {part: part for part in _names(others or "")}
    chosen = runtime.arms_of(resolved, slot, _names(arms), also)
    default = f"ablate-{preset or resolved.agent_name}-{slot}"
    folder = directory / (default if name is None else check_name(name))
    numbers = range(resolved.seed, resolved.seed + seeds)
    try:
        with only_json(json):
            document, found = runtime.ablate(chosen, numbers, folder, False if no_live else None)
    except Interrupted as stop:
        if json:
            emit({"folder": folder, "status": "interrupted"})
        print("stopped and saved: the same command goes on", file=sys.stderr)
        raise typer.Exit(stop.exit_code) from None
    if out is not None:
        from ..experiments.report.compare_page import draw

        with only_json(json):
            draw(found, document, out, f"{resolved.agent_name} on {resolved.env_id}: what {slot} contributes")
    if json:
        emit({"folder": folder, **document, "out": out})
        return
    rows = document["algorithms"]
    cells = [
        [row["name"], value(row["mean"]), ends(row["mean"]), value(row["difference"]), ends(row["difference"]),
         share(row["share_of_optimal"]), seeds_of(row), figure(row["seconds"], 1)]
        for row in rows
    ]  # fmt: skip
    table(cells, ("arm", "mean", "95 %", f"IQM - {rows[0]['name']}'s", "95 %", "of optimal", "seeds", "seconds"))
    for note in document["notes"]:
        print(note, file=sys.stderr)
    print(f"written: {RunFolder(folder).ablation_path}" + (f", {out}" if out else ""))


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
