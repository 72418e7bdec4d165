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


def _paint_unknown(pen: ImageDraw.ImageDraw, index: int, u: float) -> None:
    pen.polygon([(0.5 * u, 0.15 * u), (0.85 * u, 0.5 * u), (0.5 * u, 0.85 * u), (0.15 * u, 0.5 * u)], "#8A8F98")


PAINTERS: dict[str, Callable[[ImageDraw.ImageDraw, int, float], None]] = {
    "wall": _paint_wall,
    "shade": _paint_shade,
    "hole": _paint_hole,
    "start": _paint_start,
    "goal": _paint_goal,
    "candy": _paint_candy,
    "agent": _paint_agent,
    "numbered": _paint_numbered,
    "unknown": _paint_unknown,
}
