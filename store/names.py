"""Names of the files in a run's folder, and in a group's. Nobody else spells them."""

from __future__ import annotations

CONFIG = "config.yaml"  # the resolved configuration
METRICS = "metrics.jsonl"  # one row an update; equal seeds give equal bytes
TIMING = "timing.jsonl"  # the wall clock, one row an update
SUMMARY = "summary.json"  # status, steps, seconds, versions
EVALUATION = "evaluation.json"  # the longest greedy evaluation so far
REPORT = "report.html"
ANIMATION = "episode.gif"
LOCK = ".lock"  # held by the process that trains in the folder
CHECKPOINTS = "checkpoints"
LATEST, BEST = "latest", "best"  # in checkpoints/: text files that name one of them
TENSORBOARD = "tensorboard"
WANDB, WANDB_ID = "wandb", "wandb_id"
WANDB_STATUS, WANDB_START, WANDB_LOG = "status.json", "child.json", "child.log"  # in wandb/

GROUP = "group.yaml"  # a group of seeds: the configuration and the seeds
GROUP_RESULT = "group.json"
LEADERBOARD = "leaderboard.json"
ABLATION = "ablation.json"


def seed_name(seed: int) -> str:
    """Name of a seed's run folder within its group."""
    return f"seed-{seed}"
