"""`gumdrop eval`: measure a run, or an untrained agent, on held-out episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from . import complete
from .common import Json, Plugins, Refused, RunsFolder, Seed, check_agent, check_env, emit, figure, find_run, only_json

Source = Annotated[
    str,
    typer.Argument(
        metavar="RUN|AGENT",
        help="A run (name or path), or an agent's name with --env.",
        autocompletion=complete.runs_and_agents,
    ),
]
Env = Annotated[
    str | None,
    typer.Option(
        "--env",
        metavar="ID",
        help="Environment, for an agent's name.",
        autocompletion=complete.worlds,
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Options of --env; agent.KEY=VALUE: of the agent.", show_default=False),
]


def eval(
    source: Source,
    words: Options = None,
    env: Env = None,
    episodes: Annotated[int | None, typer.Option("--episodes", min=1, max=10**7, help="Default: the run's.")] = None,
    mode: Annotated[
        Literal["greedy", "sample"] | None,
        typer.Option("--mode", help="The likeliest actions, or drawn ones as in training. Default: greedy for a run."),
    ] = None,
    seed: Seed = 1_000_000,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="latest|best|STEP", help="Of a run; best needs eval_every in training.")
    ] = "latest",
    directory: RunsFolder = Path("runs"),
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Measure a run or an agent on held-out episodes, against chance and the exact optimum where known."""
    folder, options, agent_options = choose(source, env, words or [], directory)
    if folder is None and checkpoint != "latest":
        raise Refused(f"--checkpoint {checkpoint} is for runs: agent {source} has none")
    from ..experiments.run import evaluate

    with only_json(json):
        if folder is not None:
            result = evaluate.evaluate_run(folder, episodes, seed, mode or "greedy", checkpoint)
        else:
            assert env is not None
            result = evaluate.evaluate_named(source, env, options, episodes or 1000, seed, agent_options, mode or "sample")
    if json:
        emit(result)
    else:
        show(result)


def choose(
    source: str, env: str | None, words: list[str], directory: Path
) -> tuple[Path | None, dict[str, Any], dict[str, Any]]:
    """A run folder, or None and the options of `env` and of the agent that `source` names. Raises ValueError."""
    from ..agents.registry import agents
    from ..configs.loader import parse_options

    if env is None:
        if source in agents() and not (directory / source).is_dir():
            raise Refused(f"agent {source} needs a world: add --env ID (`gumdrop env list` shows them)")
        folder = find_run(source, directory, [*agents()])
        if words:
            raise Refused(f"{words[0]!r:.80}: a run keeps the options it was trained with; they go with --env only")
        from ..envs.names import load_plugin_files
        from ..store.run_folder import RunFolder

        config = RunFolder(folder).config()
        load_plugin_files(config.plugins)
        check_env(config.env_id, config.env_options)
        check_agent(config.agent_name, config.agent_options)
        return folder, {}, {}
    if source not in agents() and (directory / source).is_dir():
        raise Refused(f"run {source} brings its own environment: leave --env away")
    own = [word for word in words if word.startswith("agent.")]
    agent_options = parse_options(own, "agent.")
    check_agent(source, agent_options)
    options = parse_options([word for word in words if word not in own], "env.")
    check_env(env, options)
    return None, options, agent_options


def show(result: dict[str, Any]) -> None:
    """An evaluation for people."""
    if "checkpoint_env_steps" in result:
        which = "" if result["checkpoint"].isdecimal() else f"{result['checkpoint']}, "
        print(f"checkpoint {which}{figure(result['checkpoint_env_steps'])} steps")
    agent, random, optimal = result["agent"], result.get("random"), result.get("optimal")
    low, high = agent["ci95"]
    interval = f"95 %: {figure(low)} to {figure(high)}"
    print(f"return   {figure(agent['mean'])}  ({interval}; {figure(result['episodes'])} episodes)")
    if random:
        print(f"random   {figure(random['mean'])}")
    if optimal:
        print(f"optimal  {figure(optimal['mean'])}  ({optimal['meaning']})")
    if result.get("share_of_optimal") is not None:
        share = f"{100 * result['share_of_optimal']:.1f} % of optimal"
        if result.get("share_ci95"):
            low, high = result["share_ci95"]
            share += f" (95 %: {100 * low:.1f} to {100 * high:.1f})"
        if random and optimal and optimal["mean"]:
            share += f"; random gets {100 * result['random_exact'] / optimal['mean']:.1f} %"
        print(share)
    if result.get("unfinished"):
        print(f"{result['unfinished']} episodes did not end: set env.time_limit")
    if result.get("length_mean") is not None:
        print(f"length   {figure(float(result['length_mean']), 1)} steps")
