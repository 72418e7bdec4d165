"""What fills a slot of an agent, as options say it: a component by name, trained or not; or nothing.

    belief: none                                    the slot is empty
    belief: gru                                     a component as it comes
    belief: {name: gru, hidden: 32}                 with options of its own
    belief: {name: gru, untrained: true}            as it was made: what does its training contribute?

On the command line: `agent.belief=gru`, or `agent.belief.name=gru agent.belief.hidden=32`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ...configs.suggest import suggest
from ...envs.names import Broken, explain, load_plugins

if TYPE_CHECKING:
    from ...core_ml.component import Component, ComponentConfig, Slot


class Part(BaseModel):
    """A component in a slot. What it does not know itself are the component's own options."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: str = Field(description="of the component")
    untrained: bool = Field(False, description="leave it as it was made: the arm that shows what its training is worth")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class EncoderPart(Part):
    """An encoder, which learns beside the policy from what the policy sees."""

    updates: int = Field(16, ge=0, le=10_000, description="steps of its learning after each rollout")
    batch: int = Field(256, ge=2, le=1_000_000, description="observations in each of them")
    freeze_after: float = Field(0.5, ge=0, le=1, description="share of the training after which it stays as it is")


class BeliefPart(Part):
    """A belief, which learns with the policy."""

    actions: bool = Field(True, description="it is told the previous action")
    freeze_after: float = Field(0.5, ge=0, le=1, description="share of the training after which an hmm stays as it is")


@cache
def plugins() -> tuple[Broken, ...]:
    """Load the components of other packages, entry-point group gumdrop.components; those that could not be."""
    return load_plugins("gumdrop.components")


def resolve(slot: Slot, part: Part) -> tuple[Component, ComponentConfig]:
    """The component that `part` names, and its configuration. Raises ValueError with one line."""
    from ...core_ml.component import components

    plugins()
    known = components(slot)
    if part.name not in known:
        raise ValueError(f"no {slot} {part.name!r}{suggest(part.name, [*known, 'none'])}")
    found = known[part.name]
    options = part.options
    for key in found.fixed.keys() & options.keys():
        raise ValueError(f"{slot} {part.name} has {key}={found.fixed[key]}: leave {key} out")
    try:
        config: ComponentConfig = found.cls.Config(**found.fixed, **options)
    except pydantic.ValidationError as error:
        own = [*type(part).model_fields, *(name for name in found.cls.Config.model_fields if name not in found.fixed)]
        raise ValueError(explain(error, f"{slot} {part.name}", own)) from None
    return found, config


def label(part: Part) -> str:
    """A part in a few words: gru hidden=32, untrained."""
    options = part.model_dump(exclude_defaults=True, exclude={"name", "untrained"})
    said = " ".join([part.name, *(f"{key}={value}" for key, value in options.items())])
    return said + (", untrained" if part.untrained else "")


def _named(value: object) -> object:
    """ "gru" is {"name": "gru"}, "none" and null are nothing."""
    if value is None or value == "none" or value == {"name": "none"}:
        return None
    return {"name": value} if isinstance(value, str) else value


def _checked(slot: Slot) -> AfterValidator:
    def check(part: Part | None) -> Part | None:
        if part is not None:
            resolve(slot, part)
        return part

    return AfterValidator(check)


def _needed(part: Part | None) -> Part:
    if part is None:
        raise ValueError("the slot cannot be empty: give a component, untrained to see what its training is worth")
    return part


class ModelPart(Part):
    """A world model, which learns from what happened."""


EncoderSlot = Annotated[EncoderPart | None, _checked("encoder"), BeforeValidator(_named)]
BeliefSlot = Annotated[BeliefPart | None, _checked("belief"), BeforeValidator(_named)]
ModelSlot = Annotated[ModelPart, AfterValidator(_needed), _checked("model"), BeforeValidator(_named)]
