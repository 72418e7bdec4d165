"""`gumdrop resume`: go on with a run, or a group of runs, that was stopped."""

from __future__ import annotations

from pathlib import Path

from .common import Json, RunsFolder, check_agent, check_env, find_run, is_group
from .options import NoLive, RunName
from .train import Report, finish, finish_group


def resume(
    run: RunName,
    directory: RunsFolder = Path("runs"),
    json: Json = False,
    report: Report = True,
    no_live: NoLive = False,
) -> None:
    """Go on with a run, or a group of them, from the newest intact checkpoint, to the same end as if it had never stopped."""
    from ..envs.names import load_plugin_files
    from ..store.run_folder import RunFolder

    folder = find_run(run, directory, groups=True)
    seeds: list[int] = []
    if is_group(folder):
        config, seeds = RunFolder(folder).group()
    else:
        config = RunFolder(folder).config()
    load_plugin_files(config.plugins)
    check_env(config.env_id, config.env_options)
    check_agent(config.agent_name, config.agent_options)
    live = False if no_live else None
    if seeds:
        from ..experiments.run.group import train_group

        finish_group(folder, lambda: train_group(config, seeds, folder, live, resume=True, evaluate=report), json)
    else:
        from ..experiments.run.train import train

        finish(folder, lambda: train(config, folder, live, resume=True), json, report)
