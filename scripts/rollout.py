"""`gumdrop rollout`: watch an agent in the terminal, or draw its episodes to a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import Json, Plugins, RunsFolder, Seed, check_out, emit, figure, only_json
from .eval import Env, Options, Source, choose


def rollout(
    source: Source,
    words: Options = None,
    env: Env = None,
    seed: Seed = 0,
    episodes: Annotated[int, typer.Option("--episodes", min=1, max=1000, help="How many.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="FILE.gif or FILE.mp4.")] = None,
    fps: Annotated[float | None, typer.Option("--fps", min=0.1, max=120, help="Frames a second. Default: 6 in a file.")] = None,
    directory: RunsFolder = Path("runs"),
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Show episodes of a run or an agent as text, or draw them to a GIF or MP4 file."""
    if out is not None:
        check_out(out, (".gif", ".mp4"))
    folder, options, agent_options = choose(source, env, words or [], directory)
    from ..envs.draw import render
    from ..experiments.run import rollout as runtime
    from ..store.run_folder import RunFolder

    frames: list[Any] = []

    def on_frame(world: Any, *_: Any) -> None:
        if out is not None:
            frames.append(render.rgb(world, 0))
        elif not json:
            _print_frame(render.text(world, 0, color=sys.stdout.isatty()), fps)

    with only_json(json):
        done = runtime.rollout(RunFolder(folder) if folder else source, env, options, seed, episodes, on_frame, agent_options)
        if out is not None:
            render.save_animation(frames, out, fps or 6)
    if json:
        emit({"episodes": done, "out": out})
        return
    for number, episode in enumerate(done, 1):
        print(f"episode {number}: return {figure(episode.get('return'))}, {figure(episode.get('length'))} steps")
    if out is not None:
        print(f"{out}: {len(frames)} frames")


def _print_frame(text: str, fps: float | None) -> None:
    if sys.stdout.isatty():
        import time

        print("\x1b[2J\x1b[H" + text, flush=True)
        time.sleep(1 / (fps or 4))
    else:
        print(text + "\n")
