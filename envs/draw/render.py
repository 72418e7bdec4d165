"""What a copy looks like: its `Scene` as text or as a picture, and frames as a GIF or MP4.

Worlds describe, this file draws. Colours are those of Okabe & Ito (2008), which stay apart for colour-blind
eyes, and kinds of candy also differ in shape. Pillow and ffmpeg are imported only when something is
drawn or saved.
"""

from __future__ import annotations

import math
import shutil
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...store.arrays import Array
from ..batch import BatchEnv
from ..world import Entity, Scene
from .sprites import CHECK, FLOOR, INK, PAINTERS, PAPER
from .sprites import font as make_font
from .sprites import sprite as sprite_of

if TYPE_CHECKING:
    from PIL import Image

BAR, BAR_CHOSEN, BAR_BACK = "#8FA9C4", "#D55E00", "#E3DBCC"
ANSI = {
    "#": "1;90",
    "G": "1;33",
    "H": "1;30",
    "S": "2",
    "agent": "1;94",
    "heading": "1;94",
    "I": "36",
    "~": "36",
    "K": "1;33",
    "D": "33",
    "candy": "1;35",
    "goal": "1;33",
    "bar": "36",
}
TILES = {  # character of a cell -> sprite and its index
    "G": ("goal", 0), "H": ("hole", 0), "S": ("start", 0), "I": ("ice", 0), "K": ("key", 0), "D": ("door", 0),
    "~": ("water", 0),
    "X": ("decoy", 0), "<": ("one-way", 0), "v": ("one-way", 1), ">": ("one-way", 2), "^": ("one-way", 3), "C": ("cue", 0),
    "c": ("cue", 1), "0": ("teleporter", 0), "1": ("teleporter", 1), "2": ("teleporter", 2), "3": ("teleporter", 3),
}  # fmt: skip
CELLS = {"#", ".", " ", *TILES}  # characters of cells that are drawn
MOST_BARS = 30  # lines of a bar chart in text
LARGEST = 1600  # pixels: cells shrink until a grid's longer side fits


def text(env: BatchEnv, i: int, color: bool = False) -> str:
    """Copy `i` in plain ASCII: '##' wall, '@' the agent, letters for kinds of candy.

    Several agents show their last digit, '*' where they share a cell. With `color` ANSI escapes
    are added. Without a scene the observation is printed as numbers.
    """
    scene = env.scene(i)
    if scene is None:
        return _numbers(env, i)
    lines = _text_cells(scene, color)
    if scene.bars:
        width = max(len(_ascii(label)) for label, _ in scene.bars)
        for n, (label, height) in enumerate(scene.bars):
            if n >= MOST_BARS and not label.endswith(" <"):
                continue
            full = round(24 * _share(height))
            bar = _paint("=" * full, "bar", color) + "." * (24 - full)
            lines.append(f"{_ascii(label):<{width}} [{bar}] {height:.2f}")
        if len(scene.bars) > MOST_BARS:
            lines.append(f"({len(scene.bars)} bars in all)")
    if scene.caption:
        lines.append(_ascii(scene.caption))
    return "\n".join(lines)


def _text_cells(scene: Scene, color: bool) -> list[str]:
    symbols: dict[tuple[int, int], tuple[int, str, str]] = {}
    several = _agents(scene) > 1
    for e in scene.entities:
        order = {"goal": 0, "candy": 1, "agent": 2, "heading": 3}.get(e.kind, 0)
        symbol = {
            "goal": "G",
            "candy": chr(ord("a") + e.index % 26),
            "agent": str(e.index % 10) if several else "@",
            "heading": "<v>^"[e.index % 4],
        }
        here = (math.floor(e.row + 0.5), math.floor(e.column + 0.5))  # the cell it is in
        old = symbols.get(here)
        if old is not None and old[0] == order == 2:
            symbols[here] = (order, "*", e.kind)  # several agents in one cell
        elif old is None or order >= old[0]:
            symbols[here] = (order, symbol.get(e.kind) or _letter(e.kind), e.kind)
    lines = []
    for row, cells in enumerate(np.asarray(scene.cells).tolist()):
        line = ""
        for column, cell in enumerate(cells):
            _, symbol_here, kind = symbols.get((row, column), (0, _ascii(cell) or "?", cell))
            line += _paint("##" if kind == "#" else symbol_here, kind, color) + ("" if kind == "#" else " ")
        lines.append(line.rstrip())
    return lines


def _paint(symbol: str, kind: str, color: bool) -> str:
    return f"\x1b[{ANSI[kind]}m{symbol}\x1b[0m" if color and kind in ANSI else symbol


def _letter(kind: str) -> str:
    """What stands for a thing that has no picture: the first letter of its kind."""
    return _ascii(kind[:1]) or "?"


def _ascii(line: str) -> str:
    """Captions can come from strangers' worlds: no control characters reach a terminal."""
    return "".join(c if " " <= c <= "~" else "?" for c in str(line))


def _numbers(env: BatchEnv, i: int) -> str:
    obs = getattr(env, "obs", None)
    if obs is None:
        return f"{env.id}, environment {i}: it has neither a scene nor an observation to print"
    lines = []
    for k, mine in enumerate(np.asarray(obs[i])):
        if env.num_agents > 1:
            lines.append(f"agent {k}:")
        lines.append(np.array2string(mine, precision=3, suppress_small=True, threshold=200, max_line_width=100))
    return "\n".join(lines)


def rgb(env: BatchEnv, i: int, cell: int = 48) -> Array:
    """A picture of environment `i`, uint8 (H, W, 3).

    A scene is drawn with `cell` pixels per grid cell (fewer where the grid would exceed LARGEST).
    Without a scene it is the environment's own picture, or else the observation's numbers.
    """
    scene = env.scene(i)
    if scene is None:
        picture = env.rgb(i)
        return np.asarray(picture, np.uint8) if picture is not None else _text_picture(_numbers(env, i), cell)
    return draw(scene, cell)


def draw(scene: Scene, cell: int = 48) -> Array:
    """The picture of one scene, uint8 (H, W, 3): grid, bars to its right or alone, caption below."""
    from PIL import Image

    cells = np.asarray(scene.cells)
    rows, columns = cells.shape if cells.size else (0, 0)
    cell = max(4, min(cell, LARGEST // max(rows, columns, 1)))
    pad = max(2, cell // 4)
    grid = (columns * cell, rows * cell)
    chart = (0, 0)
    if scene.bars:
        wide = max(6 * cell if rows else 12 * cell, min(len(scene.bars) * cell, 12 * cell))
        chart = (wide, max(grid[1], 4 * cell) if rows else 6 * cell)
    strip = max(16, round(0.65 * cell)) if scene.caption else 0
    between = pad if rows and scene.bars else 0
    width = max(2 * pad + grid[0] + between + chart[0], 2 * cell)
    height = 2 * pad + max(grid[1], chart[1]) + strip
    image = Image.new("RGB", (width, height), PAPER)
    if rows:
        _draw_cells(image, cells, cell, pad)
        _draw_entities(image, scene, cell, pad, (rows, columns))
    if scene.bars:
        _draw_bars(image, scene.bars, (pad + grid[0] + between, pad, *chart), cell)
    if strip:
        _draw_caption(image, scene.caption, strip, pad)
    return np.array(image)


def _draw_cells(image: Image.Image, cells: Array, cell: int, pad: int) -> None:
    rows, columns = cells.shape
    solid = np.pad(cells == "#", 1, constant_values=False)
    for row in range(rows):
        for column in range(columns):
            here = (pad + column * cell, pad + row * cell)
            r, c = row + 1, column + 1
            image.paste(CHECK if (row + column) % 2 else FLOOR, (*here, here[0] + cell, here[1] + cell))
            kind = str(cells[row, column])
            if kind == "#":
                sides = (solid[r - 1, c], solid[r, c + 1], solid[r + 1, c], solid[r, c - 1])
                sprite = sprite_of("wall", sum(int(s) << b for b, s in enumerate(sides)), cell)
            else:
                if solid[r - 1, c]:
                    shade = sprite_of("shade", 0, cell)
                    image.paste(shade, here, shade)
                if kind not in TILES:
                    continue
                sprite = sprite_of(*TILES[kind], cell)
            image.paste(sprite, here, sprite)


def _draw_entities(image: Image.Image, scene: Scene, cell: int, pad: int, shape: tuple[int, int]) -> None:
    several = _agents(scene) > 1
    crowd: dict[tuple[float, float], list[Entity]] = defaultdict(list)
    over: list[Entity] = []  # arrows on agents
    for e in sorted(scene.entities, key=lambda e: {"goal": 0, "candy": 1, "agent": 2}.get(e.kind, 0)):
        if not (0 <= e.row < shape[0] and 0 <= e.column < shape[1]):
            continue  # picked up or not on the board
        if e.kind == "agent":
            crowd[e.row, e.column].append(e)
            continue
        if e.kind == "heading":
            over.append(e)
            continue
        known = e.kind in PAINTERS
        sprite = sprite_of(e.kind if known else "letter", e.index if known else ord(_letter(e.kind).upper()), cell)
        image.paste(sprite, (pad + round(e.column * cell), pad + round(e.row * cell)), sprite)
    for (row, column), agents in crowd.items():
        side = math.ceil(math.sqrt(len(agents)))  # agents that share a cell stand in a small square
        lines = math.ceil(len(agents) / side)
        size = max(3, round(cell / side * (1.0 if side == 1 else 1.25)))
        for n, e in enumerate(agents):
            x = pad + round(column * cell) + round((n % side + 0.5) * cell / side - size / 2)
            y = pad + round(row * cell) + round((n // side + 0.5) * cell / lines - size / 2)
            sprite = sprite_of("numbered" if several else "agent", e.index, size)
            image.paste(sprite, (x, y), sprite)
    for e in over:
        sprite = sprite_of(e.kind, e.index, cell)
        image.paste(sprite, (pad + round(e.column * cell), pad + round(e.row * cell)), sprite)


def _agents(scene: Scene) -> int:
    return sum(e.kind == "agent" for e in scene.entities)


def _share(height: float) -> float:
    return min(1.0, max(0.0, height)) if math.isfinite(height) else 0.0


def _draw_bars(image: Image.Image, bars: Sequence[tuple[str, float]], box: tuple[int, int, int, int], cell: int) -> None:
    """Vertical bars; a label that ends in ' <' is the chosen one. Names and figures show while they fit."""
    from PIL import Image, ImageDraw

    x, y, width, height = box
    panel = Image.new("RGB", (width * 2, height * 2), FLOOR)  # twice the size is enough for straight edges
    pen = ImageDraw.Draw(panel)
    slot = 2 * width / len(bars)
    size = max(8, round(0.27 * cell))
    font = make_font(2 * size)
    names = [label.removesuffix(" <") for label, _ in bars]
    fits = max(pen.textlength(name, font=font) for name in names) < 0.95 * slot
    figures = pen.textlength("0.00", font=font) < 0.95 * slot
    top, bottom = 2 * (size + cell // 4), 2 * height - (2 * size + cell // 3 if fits else cell // 4)
    for n, (label, value) in enumerate(bars):
        middle = (n + 0.5) * slot
        half = max(0.5, min(0.36 * slot, 0.8 * cell)) if slot > 6 else slot / 2
        line = bottom - _share(value) * (bottom - top)
        chosen = label.endswith(" <")
        radius = min(half, 0.12 * cell)
        if slot > 12:
            pen.rounded_rectangle((middle - half, top, middle + half, bottom), radius, BAR_BACK)
        if bottom - line >= 1:
            edge = (middle - half, line, middle + half, bottom)
            pen.rounded_rectangle(edge, min(radius, (bottom - line) / 2), BAR_CHOSEN if chosen else BAR)
        if figures:
            pen.text((middle, line - cell / 10), f"{value:.2f}", INK, font, "mb" if line > 0 else "mt")
        if fits:
            ink = BAR_CHOSEN if chosen else INK
            pen.text((middle, bottom + cell / 8), names[n], ink, font, "mt", stroke_width=0.6 if chosen else 0)
    image.paste(panel.resize((width, height), Image.Resampling.BOX), (x, y))


def _draw_caption(image: Image.Image, caption: str, strip: int, pad: int) -> None:
    from PIL import ImageDraw

    width, height = image.size
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, height - strip, width, height), INK)
    line = " ".join(str(caption).split())
    size = max(10, round(0.5 * strip))
    while size > 10 and pen.textlength(line, font=make_font(size)) > width - 2 * pad:
        size -= 1
    while len(line) > 1 and pen.textlength(line, font=make_font(size)) > width - 2 * pad:
        line = line.removesuffix("...")[:-1] + "..." if len(line) > 4 else line[:-1]
    pen.text((max(pad, 4), height - strip / 2), line, "#F7F3EA", make_font(size), "lm")


def _text_picture(words: str, cell: int) -> Array:
    from PIL import Image, ImageDraw

    size = max(10, cell // 3)
    lines = [part for line in words.splitlines() for part in textwrap.wrap(line, 90) or [""]]
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    width = max(probe.textlength(line, font=make_font(size)) for line in lines)
    image = Image.new("RGB", (int(width) + 2 * size, round(1.4 * size * len(lines)) + 2 * size), FLOOR)
    pen = ImageDraw.Draw(image)
    for n, line in enumerate(lines):
        pen.text((size, size + 1.4 * size * n), line, INK, make_font(size))
    return np.array(image)


def save_animation(frames: Iterable[Array], path: str | Path, fps: float = 8) -> Path:
    """Write `frames`, each uint8 (H, W, 3), to `path`: an endless .gif or an .mp4 (H.264). Returns the path.

    Smaller frames are padded at the bottom and right. Raises ValueError for other endings, no
    frames or a bad fps.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".gif", ".mp4"):
        raise ValueError(f"cannot write an animation to {path.name!r}: the name must end in .gif or .mp4")
    if not 0 < fps <= 240:
        raise ValueError(f"fps is {fps}: frames per second must be above 0 and at most 240")
    pictures = _same_size([np.asarray(frame) for frame in frames])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{kind}")
    try:
        (_save_gif if kind == ".gif" else _save_mp4)(pictures, partial, fps)
        shutil.move(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _same_size(frames: list[Array]) -> list[Array]:
    if not frames:
        raise ValueError("no frames to save: an animation needs at least one picture")
    for n, frame in enumerate(frames):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"frame {n} is {frame.dtype}{frame.shape}: frames must be uint8 (H, W, 3)")
    height, width = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
    return [_grow(frame, height, width) for frame in frames]


def _grow(frame: Array, height: int, width: int) -> Array:
    return np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge")


def _save_gif(frames: list[Array], path: Path, fps: float) -> None:
    from PIL import Image

    sample = frames[:: max(1, len(frames) // 12)]  # one palette for all frames: no flicker, and stored once
    colors = Image.fromarray(np.concatenate(sample)).quantize(255, Image.Quantize.MEDIANCUT, kmeans=1)
    images = [Image.fromarray(f).quantize(palette=colors, dither=Image.Dither.NONE) for f in frames]
    delay = max(20, round(1000 / fps))  # viewers slow down whatever is below 20 ms
    images[0].save(path, save_all=True, append_images=images[1:], duration=delay, loop=0, optimize=True, disposal=1)


def _save_mp4(frames: list[Array], path: Path, fps: float) -> None:
    import imageio_ffmpeg

    height, width = (size + size % 2 for size in frames[0].shape[:2])  # yuv420p halves both
    writer = imageio_ffmpeg.write_frames(
        str(path.resolve()), (width, height), fps=fps, quality=7, macro_block_size=1, ffmpeg_log_level="error"
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(_grow(frame, height, width)))
    finally:
        writer.close()
