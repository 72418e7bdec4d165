"""What the live view and the pages show alike: the two lines of a curve, and the parts of a training's time."""

from __future__ import annotations

from typing import NamedTuple


class YardstickLines(NamedTuple):
    """Mean returns between which a curve is drawn; None: not known."""

    random: float | None
    optimal: float | None
    meaning: str


# Parts of an update's time: name, key in a row of timing.jsonl, colour in a terminal.
TIME_PARTS = (("world", "world_s", "#56B4E9"), ("policy", "policy_s", "#E69F00"), ("learning", "learn_s", "#CC79A7"))


def distinct_names(names: list[str], longer: list[str]) -> list[str]:
    """Names that differ: of equal ones the `longer` forms, and where these are equal, too, with their place behind."""
    chosen = [long if names.count(name) > 1 else name for name, long in zip(names, longer, strict=True)]
    return [f"{name} ({k + 1})" if chosen.count(name) > 1 else name for k, name in enumerate(chosen)]
