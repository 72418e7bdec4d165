"""What fills a slot of an agent, as options say it: a component by name, trained or not; or nothing. Slots are listed in
`core_ml/component.py`.

    belief: none                                    the slot is empty
    belief: gru                                     a component with its defaults
    belief: {name: gru, hidden: 32}                 with options of its own
    belief: {name: gru, untrained: true}            never trained: what does its training contribute?

On the command line: `agent.belief=gru`, or `agent.belief.name=gru agent.belief.hidden=32`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import gymnasium
import numpy as np
import pydantic
from pydantic import AfterValidator, BeforeValidator

from ...configs.suggest import suggest
from ...core_ml.component import BeliefPart as BeliefPart
from ...core_ml.component import Component, ComponentConfig, components
from ...core_ml.component import EncoderPart as EncoderPart
from ...core_ml.component import ModelPart as ModelPart
from ...core_ml.component import Part as Part
from ...envs.names import PluginError, explain, load_plugins

if TYPE_CHECKING:
    from ...core_ml.observations import Observation


@cache
def plugins() -> tuple[PluginError, ...]:
    """Load the components of other packages, entry-point group gumdrop.components; those that could not be."""
    return load_plugins("gumdrop.components")


def resolve(slot: str, part: Part) -> tuple[Component, ComponentConfig]:
    """The component that `part` names, and its configuration. Raises ValueError with one line."""
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


def observation_of(space: gymnasium.spaces.Space[Any], what: str) -> Observation:
    """The kind of observation of a space. Raises ValueError, one line that begins with `what`, where they are not arrays."""
    from ...core_ml.observations import Observation

    if space.shape is None or space.dtype is None:
        raise ValueError(f"{what}: observations {space} are not arrays")
    high = float(np.max(space.high)) if isinstance(space, gymnasium.spaces.Box) else math.inf
    return Observation.of(space.shape, space.dtype, high)


def label(part: Part) -> str:
    """A part in a few words, such as "gru hidden=32, untrained"."""
    options = part.model_dump(exclude_defaults=True, exclude={"name", "untrained"})
    said = " ".join([part.name, *(f"{key}={value}" for key, value in options.items())])
    return said + (", untrained" if part.untrained else "")


def _named(value: object) -> object:
    """ "gru" is {"name": "gru"}, "none" and null are nothing."""
    if value is None or value == "none" or value == {"name": "none"}:
        return None
    return {"name": value} if isinstance(value, str) else value


def _checked(slot: str) -> AfterValidator:
    def check(part: Part | None) -> Part | None:
        if part is not None:
            resolve(slot, part)
        return part

    return AfterValidator(check)


def _needed(part: Part | None) -> Part:
    if part is None:
        raise ValueError("the slot cannot be empty: give a component, untrained to see what its training is worth")
    return part


EncoderSlot = Annotated[EncoderPart | None, _checked("encoder"), BeforeValidator(_named)]
BeliefSlot = Annotated[BeliefPart | None, _checked("belief"), BeforeValidator(_named)]
ModelSlot = Annotated[ModelPart, AfterValidator(_needed), _checked("model"), BeforeValidator(_named)]
