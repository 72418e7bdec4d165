"""What a run is made of: the one configuration that `train` takes and `runs/<name>/config.yaml` holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

NAME = re.compile(r"[\w][\w.+=@-]{0,99}")  # one folder name: no separators, no leading dot or dash


def _number(value: object) -> object:
    """Whole numbers may be written 1e6, but true is not 1 and text is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("it should be a number")
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]


def check_name(name: str) -> str:
    """`name` as the name of one folder. Raises ValueError where it could leave its parent."""
    name = name.strip()
    if not name:
        raise ValueError("a run name is empty: use letters, digits and . _ + = @ -")
    if not NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"run name {name!r:.80}: use letters, digits and . _ + = @ - (no '/', no '..', at most 100)")
    return name


class RunConfig(BaseModel):
    """A resolved run. `env` and `agent` also hold that world's and that agent's own options."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    env: dict[str, Any] = Field({"id": "candy"}, description="id of the environment and its own options")
    agent: dict[str, Any] = Field({"name": "ppo"}, description="name of the agent and its own options")
    num_envs: Whole = Field(64, ge=1, le=2**22, description="environments that step together")
    steps: Whole = Field(1_000_000, ge=1, le=10**15, description="environment steps: num_envs x time steps")
    seed: Whole = Field(0, ge=0, lt=2**63, description="the one seed that everything random is derived from")
    eval_episodes: Whole = Field(1000, ge=1, le=10**7, description="held-out episodes of an evaluation")
    eval_every: Whole = Field(0, ge=0, description="updates between evaluations during training, which keep the best; 0: none")
    eval_every_episodes: Whole = Field(100, ge=1, le=10**6, description="held-out episodes of each of these evaluations")
    patience: Whole = Field(0, ge=0, description="evaluations without a better one until training stops; 0: it never does")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where world and learner work: the processor or a GPU")
    threads: Whole = Field(0, ge=0, le=1024, description="processor threads; 0: chosen by rule")
    checkpoint_updates: Whole = Field(0, ge=0, description="updates between checkpoints; 0: by time")
    checkpoint_seconds: Real = Field(20.0, gt=0, description="seconds between checkpoints")
    keep_checkpoints: Whole = Field(3, ge=1, le=10_000, description="how many checkpoints are kept")
    plugins: list[str] = Field([], description="Python files that register worlds, agents or components, loaded first")
    track: list[Literal["wandb", "tensorboard"]] = Field([], description="where metrics are copied to, beside the run folder")
    project: str = Field("gumdrop", min_length=1, max_length=128, description="project name for W&B")
    name: str = Field("", description="folder name of the run; empty: made from preset, env and agent")

    @property
    def env_id(self) -> str:
        return str(self.env["id"])

    @property
    def env_options(self) -> dict[str, Any]:
        """What is the world's own in `env`."""
        return {key: value for key, value in self.env.items() if key != "id"}

    @property
    def agent_name(self) -> str:
        return str(self.agent["name"])

    @property
    def agent_options(self) -> dict[str, Any]:
        """What is the algorithm's own in `agent`."""
        return {key: value for key, value in self.agent.items() if key != "name"}

    @field_validator("env", "agent")
    @classmethod
    def _named(cls, value: dict[str, Any], info: Any) -> dict[str, Any]:
        key = NAMING[info.field_name]
        if not isinstance(value.get(key), str) or not value[key].strip():
            raise ValueError(f"it needs {info.field_name}.{key}, a text")
        return value

    @field_validator("track", "plugins", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("plugins")
    @classmethod
    def _from_anywhere(cls, paths: list[str]) -> list[str]:
        """Absolute, so that `resume` finds them from another folder."""
        return [str(Path(path).expanduser().resolve()) for path in paths]

    @model_validator(mode="after")
    def _patience_needs_evaluations(self) -> RunConfig:
        if self.patience and not self.eval_every:
            raise ValueError(f"patience={self.patience} needs evaluations during training: give eval_every, too")
        return self

    @field_validator("name")
    @classmethod
    def _folder_name(cls, name: str) -> str:
        return check_name(name) if name else name


NAMING = {"env": "id", "agent": "name"}  # the key inside env and agent that says whose options the others are
