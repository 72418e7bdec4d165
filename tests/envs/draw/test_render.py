"""Scenes as text and pictures: the right things in the right places, and animations with every frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.envs import registry
from gumdrop.envs.draw import render
from gumdrop.envs.draw.sprites import AGENT, CANDY, CHECK, FLOOR, INK, WALL
from gumdrop.envs.make import make
from gumdrop.envs.world import Entity, Scene

CELL, PAD = 48, 12
BOARD = np.array([list("#####"), list("#S..#"), list("#.H.#"), list("#..G#"), list("#####")])


class Stub:
    """The part of a BatchEnv that drawing uses."""

    id = "stub"

    def __init__(self, scene: Scene | None = None, picture: Any = None, obs: Any = None, num_agents: int = 1) -> None:
        self._scene, self._picture, self.num_agents = scene, picture, num_agents
        if obs is not None:
            self.obs = obs

    def scene(self, i: int) -> Scene | None:
        return self._scene

    def rgb(self, i: int) -> Any:
        return self._picture


def pixel(image: Any, row: int, column: int, dy: float = 0.5, dx: float = 0.5) -> Any:
    """Colour inside a cell, (dy, dx) in 0..1 from its upper left corner."""
    return image[PAD + round((row + dy) * CELL), PAD + round((column + dx) * CELL)].astype(int)


def near(color: Any, wanted: str, tolerance: int = 30) -> bool:
    return bool(np.abs(color - [int(wanted[k : k + 2], 16) for k in (1, 3, 5)]).max() <= tolerance)


def test_text_shows_every_kind_of_cell_and_entity() -> None:
    scene = Scene(BOARD, (Entity(1, 2, "agent"), Entity(2, 1, "candy", 0), Entity(3, 1, "candy", 2)), caption="step 3")
    assert render.text(Stub(scene), 0).splitlines() == [
        "##########",
        "##S @ . ##",
        "##a H . ##",
        "##c . G ##",
        "##########",
        "step 3",
    ]


def test_text_of_several_agents_and_color() -> None:
    scene = Scene(
        BOARD,
        (
            Entity(1, 1, "agent", 0),
            Entity(1, 2, "agent", 1),
            Entity(3, 1, "agent", 2),
            Entity(3, 1, "agent", 3),
        ),
    )
    assert render.text(Stub(scene, num_agents=4), 0).splitlines()[1::2][:2] == ["##0 1 . ##", "##* . G ##"]
    colored = render.text(Stub(scene), 0, color=True)
    assert "\x1b[1;94m0\x1b[0m" in colored and "\x1b" not in render.text(Stub(scene), 0)


def test_text_is_ascii_whatever_the_caption_says() -> None:
    words = render.text(Stub(Scene(BOARD, caption="r\u00e9ward \x1b[31m\u2603")), 0)
    assert words.isascii() and "\x1b" not in words


def test_text_bars_are_clipped_and_many_bars_are_cut() -> None:
    bars = (("arm 0", 0.5), ("arm 1 <", 7.0), ("arm 2", float("nan")))
    lines = render.text(Stub(Scene(np.empty((0, 0), "<U1"), bars=bars)), 0).splitlines()
    assert [line.count("=") for line in lines] == [12, 24, 0]
    many = tuple((f"arm {k}" + (" <" if k == 700 else ""), 0.5) for k in range(1000))
    lines = render.text(Stub(Scene(np.empty((0, 0), "<U1"), bars=many)), 0).splitlines()
    assert len(lines) == render.MOST_BARS + 2 and any("arm 700 <" in line for line in lines) and "1000" in lines[-1]


def test_picture_has_each_thing_where_the_scene_says() -> None:
    candies = tuple(Entity(1 + k // 3, 1 + k % 3, "candy", k) for k in range(3))
    image = render.rgb(Stub(Scene(BOARD, (*candies, Entity(3, 1, "agent", 1)))), 0)
    assert image.shape == (5 * CELL + 2 * PAD, 5 * CELL + 2 * PAD, 3) and image.dtype == np.uint8
    assert near(pixel(image, 0, 2), WALL) and near(pixel(image, 4, 0), WALL)
    assert near(pixel(image, 2, 3, 0.9), CHECK) and near(pixel(image, 3, 2, 0.9, 0.3), CHECK)
    assert near(pixel(image, 2, 2, 0.6), "#12151F"), "the hole is dark"
    assert near(pixel(image, 3, 3, 0.6), "#F5B921"), "the goal is a golden star"
    for k in range(3):
        assert near(pixel(image, 1, 1 + k, 0.45), CANDY[k]), f"candy of kind {k}"
    assert near(pixel(image, 3, 1, 0.67), AGENT[1]) or near(pixel(image, 3, 1, 0.3), AGENT[1])
    assert near(pixel(image, 2, 1, 0.9), CHECK) or near(pixel(image, 2, 1, 0.9), FLOOR)


def test_agents_move_and_differ() -> None:
    first, second = (render.rgb(Stub(Scene(BOARD, (Entity(1, 2, "agent", k),))), 0) for k in (0, 1))
    assert near(pixel(first, 1, 2, 0.3), AGENT[0]) and near(pixel(second, 1, 2, 0.3), AGENT[1])
    moved = render.rgb(Stub(Scene(BOARD, (Entity(1, 3, "agent", 0),))), 0)
    changed = np.argwhere((first != moved).any(axis=2))
    assert changed.min(axis=0).tolist() >= [PAD + CELL, PAD + 2 * CELL]
    assert changed.max(axis=0)[0] < PAD + 2 * CELL and changed.max(axis=0)[1] < PAD + 4 * CELL
    both = render.rgb(Stub(Scene(BOARD, (Entity(1, 2, "agent", 0), Entity(1, 2, "agent", 1)))), 0)
    cell = both[PAD + CELL : PAD + 2 * CELL, PAD + 2 * CELL : PAD + 3 * CELL].astype(int)
    for k in (0, 1):
        assert any(near(color, AGENT[k], 12) for color in cell.reshape(-1, 3)), "both are seen in one cell"


def test_edges_are_smooth() -> None:
    image = render.rgb(Stub(Scene(np.full((1, 1), "."), (Entity(0, 0, "candy", 1),))), 0)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 60, "anti-aliased edges have many shades"


def test_caption_adds_a_strip_and_long_ones_are_cut() -> None:
    plain, short, long = (render.rgb(Stub(Scene(BOARD, caption=words)), 0) for words in ("", "step 1", "word " * 200))
    assert short.shape == long.shape and short.shape[1] == plain.shape[1] and short.shape[0] > plain.shape[0]
    strip = short[plain.shape[0] :]
    assert near(strip[0, -1].astype(int), INK) and strip.max() > 200, "light letters on a dark strip"


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_bars_have_their_height(count: int) -> None:
    bars = tuple((f"arm {k}" + (" <" if k == 1 else ""), 0.9 if k else 0.1) for k in range(count))
    image = render.rgb(Stub(Scene(np.empty((0, 0), "<U1"), bars=bars)), 0).astype(int)
    assert image.shape == (6 * CELL + 2 * PAD, 12 * CELL + 2 * PAD, 3)
    if count < 100:
        slot = 12 * CELL / count
        blue, red = (image[:, round(PAD + (k + 0.5) * slot)] for k in (0, 1))
        low = sum(near(color, render.BAR, 12) for color in blue)
        high = sum(near(color, render.BAR_CHOSEN, 12) for color in red)
        assert 6 < high / low < 12, "0.9 is nine times 0.1"


def test_big_grids_shrink_and_strange_entities_do_no_harm() -> None:
    image = render.rgb(Stub(Scene(np.full((200, 100), "."), (Entity(-1, -1, "candy"), Entity(5, 5, "dragon", 3)))), 0)
    assert max(image.shape) <= render.LARGEST + 2 * PAD
    assert " d " in render.text(Stub(Scene(np.full((9, 9), "."), (Entity(5, 5, "dragon", 3),))), 0)


def test_without_a_scene_the_environment_draws_or_numbers_are_shown() -> None:
    picture = np.full((4, 6, 3), 7, np.uint8)
    obs = np.array([[[1.5, -2.25]], [[3.0, 4.0]]], np.float32)
    assert (render.rgb(Stub(None, picture, obs), 0) == picture).all()
    drawn = render.rgb(Stub(None, None, obs), 1)
    assert drawn.ndim == 3 and drawn.shape[2] == 3 and drawn.dtype == np.uint8
    assert "1.5" in render.text(Stub(None, None, obs), 0) and "4." in render.text(Stub(None, None, obs), 1)
    assert "neither" in render.text(Stub(None), 0)


def test_every_registered_world_can_be_drawn() -> None:
    for name in registry.worlds():
        env = make(name, num_envs=2, seed=3)
        words, image = render.text(env, 1), render.rgb(env, 1)
        assert words.isascii() and words.strip(), name
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, name


def frames(count: int = 7, height: int = 33, width: int = 51) -> list[Any]:
    pictures = np.full((count, height, width, 3), 240, np.uint8)
    for k in range(count):
        pictures[k, 10:20, 5 * k : 5 * k + 5] = (0, 114, 178)
    return list(pictures)


def test_gif_keeps_frames_colours_and_time(tmp_path: Path) -> None:
    from PIL import Image

    path = render.save_animation(frames(), tmp_path / "new" / "episode.gif", fps=10)
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["loop"], image.info["duration"]) == (
            7,
            (51, 33),
            0,
            100,
        )
        for k in range(7):
            image.seek(k)
            shown = np.array(image.convert("RGB"))
            assert np.abs(shown.astype(int) - frames()[k]).max() <= 12, f"frame {k}"
    assert [p.name for p in path.parent.iterdir()] == ["episode.gif"]


def test_gif_of_an_episode_is_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    board = np.full((9, 9), ".")
    candies = [Entity(int(r), int(c), "candy", k % 4) for k, (r, c) in enumerate(rng.integers(0, 9, (12, 2)))]
    scenes = [Scene(board, (*candies[k // 4 :], Entity(k // 9, k % 9, "agent"))) for k in range(40)]
    path = render.save_animation([render.rgb(Stub(s), 0) for s in scenes], tmp_path / "a.gif", fps=8)
    assert path.stat().st_size < 150_000


def test_mp4_has_every_frame_and_even_sides(tmp_path: Path) -> None:
    import imageio_ffmpeg

    path = render.save_animation(frames(), tmp_path / "episode.mp4", fps=10)
    assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 7
    reader = imageio_ffmpeg.read_frames(str(path))
    assert next(reader)["size"] == (52, 34)
    reader.close()


def test_frames_of_different_sizes_are_padded(tmp_path: Path) -> None:
    from PIL import Image

    path = render.save_animation([*frames(2), *frames(2, height=40)], tmp_path / "a.gif")
    with Image.open(path) as image:
        assert image.size == (51, 40)


@pytest.mark.parametrize(
    ("name", "pictures", "fps", "message"),
    [
        ("a.avi", frames(), 8, r"\.gif or \.mp4"),
        ("a", frames(), 8, r"\.gif or \.mp4"),
        ("a.gif", [], 8, "no frames"),
        ("a.gif", frames(), 0, "fps is 0"),
        ("a.mp4", [np.zeros((4, 4), np.uint8)], 8, "frame 0"),
        ("a.gif", [np.zeros((4, 4, 3))], 8, "float64"),
    ],
)
def test_bad_animations_say_why(tmp_path: Path, name: str, pictures: Any, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render.save_animation(pictures, tmp_path / name, fps)
    assert list(tmp_path.iterdir()) == []
