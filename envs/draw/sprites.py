"""The pictures that `render.py` puts into cells: walls, candies, agents. Pillow is imported late."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

# Okabe-Ito, in an order that gives neighbours of a list the largest contrast
CANDY = ("#D55E00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#E69F00", "#0072B2", "#8A8F98")
AGENT = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#6B7280")
PAPER, FLOOR, CHECK, INK = "#EDE6D9", "#FAF6EE", "#F3EDE1", "#2B3245"
WALL, WALL_LIGHT, WALL_FRONT = "#55617D", "#6A7794", "#384158"
SCALE = 4  # sprites are drawn this much larger and then reduced: anti-aliasing


@lru_cache(maxsize=32)
def font(size: float) -> Any:
    """Pillow's own font at `size` pixels: no dependence on the fonts of the system."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


@lru_cache(maxsize=1024)
def sprite(name: str, index: int, size: int) -> Image.Image:
    """One thing in one cell, RGBA (size, size), drawn SCALE times larger and reduced."""
    from PIL import Image, ImageDraw

    large = Image.new("RGBA", (size * SCALE, size * SCALE))
    PAINTERS[name](ImageDraw.Draw(large), index, float(size * SCALE))
    return large.resize((size, size), Image.Resampling.LANCZOS)


def _mix(color: str, other: str, share: float) -> str:
    pairs = [(int(color[k : k + 2], 16), int(other[k : k + 2], 16)) for k in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02X}" for a, b in pairs)


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, color: str, ry: float | None = None) -> None:
    pen.ellipse((x - r, y - (ry or r), x + r, y + (ry or r)), color)


def _paint_wall(pen: ImageDraw.ImageDraw, sides: int, u: float) -> None:
    """`sides`: bits 1, 2, 4, 8 for a wall above, right, below, left. A free front shows depth."""
    up, right, down, left = (bool(sides & bit) for bit in (1, 2, 4, 8))
    corners = (not (up or left), not (up or right), not (down or right), not (down or left))
    r, front = 0.2 * u, 0.24 * u
    pen.rounded_rectangle((0, 0, u, u), r, WALL_FRONT, corners=corners)
    pen.rounded_rectangle((0, 0, u, u if down else u - front), r, WALL_LIGHT, corners=corners)
    edge = 0.06 * u
    inner = (0 if left else edge, 0 if up else edge, u if right else u - edge, u if down else u - front)
    pen.rounded_rectangle(inner, r * 0.8, WALL, corners=corners)


def _paint_shade(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    for n in range(8):
        pen.rectangle((0, n * 0.025 * u, u, (n + 1) * 0.025 * u), (43, 50, 69, round(52 * (1 - n / 8))))


def _paint_hole(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    pen.rounded_rectangle((0.06 * u, 0.06 * u, 0.94 * u, 0.94 * u), 0.3 * u, "#5A5F70")
    pen.rounded_rectangle((0.10 * u, 0.13 * u, 0.90 * u, 0.94 * u), 0.27 * u, "#23283A")
    pen.rounded_rectangle((0.16 * u, 0.24 * u, 0.84 * u, 0.92 * u), 0.24 * u, "#12151F")


def _paint_start(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    _disc(pen, u / 2, u / 2, 0.36 * u, "#D9CFBC")
    _disc(pen, u / 2, u / 2, 0.29 * u, FLOOR)
    _disc(pen, u / 2, u / 2, 0.10 * u, "#D9CFBC")


def _star(u: float, radius: float) -> list[tuple[float, float]]:
    turns = [(radius * (1.0 if k % 2 == 0 else 0.5), math.pi * (k / 5 - 0.5)) for k in range(10)]
    return [(u * (0.5 + r * math.cos(a)), u * (0.53 + r * math.sin(a))) for r, a in turns]


def _paint_goal(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    pen.rounded_rectangle((0.04 * u, 0.04 * u, 0.96 * u, 0.96 * u), 0.2 * u, "#CFEBDD")
    pen.polygon(_star(u, 0.42), "#B07400")
    pen.line([*_star(u, 0.42), _star(u, 0.42)[0]], "#B07400", round(0.05 * u), joint="curve")
    pen.polygon(_star(u, 0.37), "#F5B921")
    pen.polygon([(x * 0.55 + 0.2 * u, y * 0.55 + 0.19 * u) for x, y in _star(u, 0.3)], "#FBD566")


def _paint_candy(pen: ImageDraw.ImageDraw, kind: int, u: float) -> None:
    """Four shapes and eight colours: wrapped, gumdrop, lollipop, mint."""
    color = CANDY[kind % len(CANDY)]
    dark, pale = _mix(color, "#101420", 0.32), _mix(color, "#FFFFFF", 0.55)
    shape = kind % 4
    _disc(pen, 0.5 * u, 0.84 * u, 0.27 * u, "#D8CFBF", 0.055 * u)  # shadow on the floor
    if shape == 0:
        for s in (-1, 1):
            tip = 0.5 + 0.42 * s
            wing = [
                (0.5 * u, 0.5 * u),
                (tip * u, 0.27 * u),
                ((tip - 0.09 * s) * u, 0.5 * u),
                (tip * u, 0.73 * u),
            ]
            pen.polygon(wing, pale)
            pen.line([*wing, wing[0]], dark, round(0.03 * u), joint="curve")
        _disc(pen, 0.5 * u, 0.5 * u, 0.275 * u, dark)
        _disc(pen, 0.5 * u, 0.5 * u, 0.245 * u, color)
    elif shape == 1:
        for color_, grow in ((dark, 0.03), (color, 0.0)):
            box = ((0.24 - grow) * u, (0.44 - grow) * u, (0.76 + grow) * u, (0.78 + grow) * u)
            pen.rounded_rectangle(box, 0.12 * u, color_)
            _disc(pen, 0.5 * u, 0.46 * u, (0.24 + grow) * u, color_, (0.26 + grow) * u)
    elif shape == 2:
        pen.rounded_rectangle((0.455 * u, 0.5 * u, 0.545 * u, 0.93 * u), 0.045 * u, "#B9AE9B")
        pen.rounded_rectangle((0.475 * u, 0.5 * u, 0.525 * u, 0.91 * u), 0.025 * u, "#FFFDF8")
        _disc(pen, 0.5 * u, 0.42 * u, 0.315 * u, dark)
        _disc(pen, 0.5 * u, 0.42 * u, 0.285 * u, color)
        pen.arc((0.34 * u, 0.26 * u, 0.66 * u, 0.58 * u), 20, 290, pale, round(0.05 * u))
    else:
        _disc(pen, 0.5 * u, 0.5 * u, 0.335 * u, dark)
        _disc(pen, 0.5 * u, 0.5 * u, 0.305 * u, color)
        for k in range(6):
            pen.pieslice((0.195 * u, 0.195 * u, 0.805 * u, 0.805 * u), 60 * k, 60 * k + 22, pale)
        _disc(pen, 0.5 * u, 0.5 * u, 0.15 * u, color)
    if shape != 2:
        pen.ellipse((0.35 * u, 0.29 * u, 0.46 * u, 0.37 * u), "#FFFFFFD9")  # shine


def _paint_agent(pen: ImageDraw.ImageDraw, index: int, u: float, number: bool = False) -> None:
    color = AGENT[index % len(AGENT)]
    dark = _mix(color, "#101420", 0.4)
    _disc(pen, 0.5 * u, 0.89 * u, 0.32 * u, "#CFC6B6", 0.06 * u)
    for x in (0.36, 0.64):
        pen.ellipse(((x - 0.1) * u, 0.78 * u, (x + 0.1) * u, 0.91 * u), dark)  # feet
    pen.line((0.5 * u, 0.16 * u, 0.5 * u, 0.07 * u), dark, round(0.035 * u))
    _disc(pen, 0.5 * u, 0.07 * u, 0.05 * u, dark)
    pen.rounded_rectangle((0.155 * u, 0.125 * u, 0.845 * u, 0.865 * u), 0.32 * u, dark)
    pen.rounded_rectangle((0.185 * u, 0.155 * u, 0.815 * u, 0.835 * u), 0.29 * u, color)
    pen.ellipse((0.27 * u, 0.19 * u, 0.48 * u, 0.27 * u), _mix(color, "#FFFFFF", 0.4))
    for x in (0.37, 0.63):
        _disc(pen, x * u, 0.42 * u, 0.105 * u, "#FFFFFF", 0.125 * u)
        _disc(pen, (x + 0.01) * u, 0.44 * u, 0.055 * u, "#1B2030", 0.07 * u)
        _disc(pen, (x + 0.03) * u, 0.41 * u, 0.02 * u, "#FFFFFF")
    if number:
        pen.text(
            (0.5 * u, 0.81 * u),
            str(index),
            "#FFFFFF",
            font(0.26 * u),
            "mb",
            stroke_width=0.02 * u,
            stroke_fill=dark,
        )
    else:
        pen.arc((0.37 * u, 0.5 * u, 0.63 * u, 0.71 * u), 20, 160, "#FFFFFF", round(0.045 * u))


def _paint_numbered(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    _paint_agent(pen, index, u, number=True)


def _paint_ice(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    pen.rectangle((0, 0, u, u), "#CFE8F5")
    for x, y, length in ((0.16, 0.42, 0.26), (0.3, 0.5, 0.14), (0.56, 0.8, 0.24), (0.7, 0.24, 0.12)):
        pen.line((x * u, y * u, (x + length) * u, (y - length) * u), "#FFFFFF", round(0.05 * u))


def _paint_water(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    pen.rectangle((0, 0, u, u), "#DCEBF2")
    for x, y in ((0.12, 0.3), (0.5, 0.55), (0.2, 0.8)):
        pen.arc((x * u, (y - 0.1) * u, (x + 0.18) * u, (y + 0.06) * u), 180, 360, "#9CC3D9", round(0.04 * u))
        pen.arc(((x + 0.18) * u, (y - 0.1) * u, (x + 0.36) * u, (y + 0.06) * u), 0, 180, "#9CC3D9", round(0.04 * u))


def _arrow(direction: int, u: float, reach: float, width: float) -> list[tuple[float, float]]:
    """Corners of an arrow head that points left, down, right or up, around the middle of a cell."""
    ahead, aside = ((-1, 0), (0, 1), (1, 0), (0, -1))[direction % 4], ((0, 1), (1, 0), (0, 1), (1, 0))[direction % 4]
    corners = ((reach, 0.0), (-reach * 0.6, width), (-reach * 0.6, -width))
    return [((0.5 + a * ahead[0] + b * aside[0]) * u, (0.5 + a * ahead[1] + b * aside[1]) * u) for a, b in corners]


def _paint_one_way(pen: ImageDraw.ImageDraw, direction: int, u: float) -> None:
    pen.rounded_rectangle((0.06 * u, 0.06 * u, 0.94 * u, 0.94 * u), 0.12 * u, "#E4D3B4")
    pen.polygon(_arrow(direction, u, 0.34, 0.3), "#9A7B45")


def _paint_teleporter(pen: ImageDraw.ImageDraw, pair: int, u: float) -> None:
    color = (CANDY[3], CANDY[1], CANDY[2], CANDY[5])[pair % 4]
    for n, radius in enumerate((0.42, 0.32, 0.22, 0.12)):
        _disc(pen, 0.5 * u, 0.5 * u, radius * u, _mix(color, "#FFFFFF", 0.65) if n % 2 else color)


def _paint_key(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    for color, grow in (("#7A5200", 0.03), ("#F5B921", 0.0)):
        pen.rounded_rectangle(((0.4 - grow) * u, (0.45 - grow) * u, (0.88 + grow) * u, (0.55 + grow) * u), 0.04 * u, color)
        for x in (0.66, 0.8):
            pen.rectangle(((x - grow) * u, 0.5 * u, (x + 0.07 + grow) * u, (0.68 + grow) * u), color)
        _disc(pen, 0.29 * u, 0.5 * u, (0.17 + grow) * u, color)
    _disc(pen, 0.29 * u, 0.5 * u, 0.08 * u, FLOOR)


def _paint_door(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    pen.rounded_rectangle((0.06 * u, 0.03 * u, 0.94 * u, 0.97 * u), 0.1 * u, "#5E3A12")
    pen.rounded_rectangle((0.13 * u, 0.1 * u, 0.87 * u, 0.9 * u), 0.06 * u, "#B5793A")
    _disc(pen, 0.5 * u, 0.44 * u, 0.1 * u, "#2B1A08")
    pen.polygon([(0.5 * u, 0.44 * u), (0.59 * u, 0.7 * u), (0.41 * u, 0.7 * u)], "#2B1A08")


def _paint_cue(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    """Two cues that differ in colour and in where they point."""
    pen.rounded_rectangle((0.1 * u, 0.1 * u, 0.9 * u, 0.9 * u), 0.2 * u, ("#009E73", "#0072B2")[index % 2])
    pen.polygon(_arrow((3, 1)[index % 2], u, 0.26, 0.24), "#FFFFFF")


def _paint_decoy(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    """Looks like a goal to the agent; to those who watch, a star without its light."""
    pen.rounded_rectangle((0.04 * u, 0.04 * u, 0.96 * u, 0.96 * u), 0.2 * u, "#E3DFD6")
    pen.polygon(_star(u, 0.4), "#A9A294")


def _paint_heading(pen: ImageDraw.ImageDraw, direction: int, u: float) -> None:
    """Over an agent: which way it faces."""
    ahead = ((-1, 0), (0, 1), (1, 0), (0, -1))[direction % 4]
    move = [(x + 0.33 * u * ahead[0], y + 0.33 * u * ahead[1]) for x, y in _arrow(direction, u, 0.15, 0.17)]
    pen.polygon(move, "#F0E442")
    pen.line([*move, move[0]], INK, round(0.03 * u), joint="curve")


def _paint_letter(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    """A token for a thing that has no picture of its own: the character with code `index`."""
    pen.rounded_rectangle((0.16 * u, 0.16 * u, 0.84 * u, 0.84 * u), 0.2 * u, "#8A8F98")
    pen.text((0.5 * u, 0.5 * u), chr(index), "#FFFFFF", font(round(0.5 * u)), "mm")


def _paint_waste(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    pen.polygon([(0.5 * u, 0.15 * u), (0.85 * u, 0.5 * u), (0.5 * u, 0.85 * u), (0.15 * u, 0.5 * u)], "#8A8F98")


def _paint_pole(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    _disc(pen, 0.5 * u, 0.5 * u, 0.3 * u, "#D55E00")


PAINTERS: dict[str, Callable[[ImageDraw.ImageDraw, int, float], None]] = {
    "wall": _paint_wall,
    "shade": _paint_shade,
    "hole": _paint_hole,
    "start": _paint_start,
    "goal": _paint_goal,
    "candy": _paint_candy,
    "agent": _paint_agent,
    "numbered": _paint_numbered,
    "ice": _paint_ice,
    "water": _paint_water,
    "one-way": _paint_one_way,
    "teleporter": _paint_teleporter,
    "key": _paint_key,
    "door": _paint_door,
    "cue": _paint_cue,
    "decoy": _paint_decoy,
    "heading": _paint_heading,
    "waste": _paint_waste,
    "pole": _paint_pole,
    "letter": _paint_letter,
}
