"""Pictures of solved worlds: which cell gets which value, arrow and colour, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gumdrop.envs.examine import solution as solve
from gumdrop.envs.examine import value_map as value_map
from gumdrop.envs.solvers import mdp
from gumdrop.envs.world import Entity, Model, Scene, World
from gumdrop.scripts.cli import main
from gumdrop.store.arrays import Array


class Spot(NamedTuple):
    cell: Array  # (N,) flat, three columns
    heading: Array  # (N,)


class Floor(World):
    """A stand-in: two rows of three cells, the state is a flat cell and a heading."""

    def scene(self, s: Any, i: int) -> Scene:
        return Scene(np.array([list("..G"), list("..#")]), (Entity(int(s.cell[i]) // 3, int(s.cell[i]) % 3, "agent"),))


def floor_model(leads: Any) -> Model:
    """`leads(cell, heading, action)` -> (cell, heading); stepping on cell 2 pays 1 and ends. Start: cell 3, heading 1."""
    fields = {"cell": np.repeat([0, 1, 2, 3, 4], 2), "heading": np.tile([0, 1], 5)}
    to, end = np.zeros((10, 3, 1), np.int64), np.zeros((10, 3, 1), np.bool_)
    for s in range(10):
        for a in range(3):
            cell, heading = leads(int(fields["cell"][s]), int(fields["heading"][s]), a)
            to[s, a, 0], end[s, a, 0] = 2 * cell + heading, cell == 2 != fields["cell"][s]
    return Model(to, np.ones(to.shape), end.astype(float), end, 7, fields)


def drawn(model: Model) -> value_map.Map | None:
    solution = mdp.value_iteration(model, 0.5)
    q = mdp.backup(mdp.flatten(model), solution.value, 0.5)
    return value_map.map_of(Floor(World.Config()), Spot(np.array([3]), np.array([1])), model, solution, q)


def step_right_or_up(cell: int, heading: int, action: int) -> tuple[int, int]:
    right, up = {0: 1, 1: 2, 3: 4}, {3: 0, 4: 1}
    return ({0: right, 1: up}.get(action, {}).get(cell, cell), heading)


def test_a_flat_cell_is_found_and_drawn() -> None:
    picture = drawn(floor_model(step_right_or_up))
    assert picture is not None and picture.start == (1, 0)
    np.testing.assert_allclose(picture.value, [[0.5, 1, np.nan], [0.25, 0.5, np.nan]], atol=1e-9)
    assert ["".join(row) for row in picture.mark] == [">>G", ">^#"]
    assert picture.move[1, 1].tolist() == [-1, 0] and picture.move[0, 1].tolist() == [0, 1]


def test_turning_is_a_letter_and_one_heading_is_shown() -> None:
    """Action 0 turns, action 1 goes forward: right with heading 1, up with heading 0."""

    def turn(cell: int, heading: int, action: int) -> tuple[int, int]:
        if action == 0:
            return cell, 1 - heading
        return step_right_or_up(cell, heading, 0 if heading else 1) if action == 1 else (cell, heading)

    picture = drawn(floor_model(turn))
    assert picture is not None
    assert ["".join(row) for row in picture.mark] == [">>G", "aa#"]  # at (1, 1) it faces the wall
    assert "a, b, c, ...: action 0" in value_map.text(picture)


def test_actions_that_mean_different_things_in_each_cell() -> None:
    """As in DeepSea: what action 0 does in one cell, action 1 does in the next; arrows are those of the cell."""

    def mixed(cell: int, heading: int, action: int) -> tuple[int, int]:
        falls = {0: (4, 0), 1: (0, 2), 3: (3, 1)}  # (a cell slantwise, or none; the other way)
        ways = falls.get(cell, (cell, cell))
        return (ways[action] if action < 2 else cell, heading)

    model = floor_model(mixed)
    picture = drawn(model)
    assert picture is not None
    assert picture.mark[0, 1] == ">" and picture.mark[1, 0] == "9"
    assert "on a number pad" in value_map.text(picture)


def test_states_that_are_no_places() -> None:
    model = floor_model(step_right_or_up)
    odd = model._replace(fields={"cell": np.zeros(10, int), "number": np.arange(10)})
    solution = mdp.value_iteration(odd, 0.5)

    class Number(NamedTuple):
        cell: Array
        number: Array

    one = Number(np.array([0]), np.array([7]))
    q = mdp.backup(mdp.flatten(odd), solution.value, 0.5)
    assert value_map.map_of(Floor(World.Config()), one, odd, solution, q) is None
    rows = value_map.rows_of(odd, solution)
    lines = value_map.text(rows).splitlines()
    assert lines[0].split() == ["cell", "number", "value", "action"] and lines[1].split() == ["start", "0", "7", "0.25", "0"]
    assert len(lines) == 11


def test_candy_and_goals_are_marked() -> None:
    solved = solve.examine("candy", {"candies": 3}, seed=0)
    assert isinstance(solved.picture, value_map.Map)
    assert (solved.picture.cells == "*").sum() == 3 and np.isnan(solved.picture.value).sum() == 3
    assert not np.isnan(solved.picture.value[solved.picture.start])
    assert value_map.text(solved.picture) == solved.document["text"]


def pixels(path: Path) -> Array:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_picture_shows_the_values(tmp_path: Path) -> None:
    """Dark navy where it is worth least, yellow where most, the start's ring and hatched walls: cividis, by colour."""
    path = tmp_path / "value.png"
    value = np.array([[0.0, 1.0], [np.nan, 0.5]])
    move = np.zeros((2, 2, 2), np.int64)
    cells, mark = np.array([[".", "."], ["#", "G"]]), np.array([[".", "o"], ["#", "o"]])
    value_map.save(path, value_map.Map(cells, value, move, mark, (0, 1)), "two by two")
    image = pixels(path)

    def share(color: tuple[int, int, int]) -> float:
        return float((np.abs(image - color).max(2) <= 3).mean())

    assert share((0, 34, 78)) > 0.02 and share((254, 232, 56)) > 0.02, "both ends of cividis fill a cell"
    assert share((213, 94, 0)) > 0.0005, "the start's ring"
    assert share((217, 213, 204)) > 0.01, "the wall"
    value_map.save(path, value_map.Map(cells, value, move, mark, (0, 0)), "two by two")
    assert pixels(path).tobytes() != image.tobytes()


@pytest.mark.parametrize("shape", [(1, 2), (1, 60), (40, 3), (101, 101)])
def test_any_board_fits(tmp_path: Path, shape: tuple[int, int]) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "value.png"
    move = rng.integers(-1, 2, (*shape, 2))
    mark = np.where(move.any(2), "^", "o")
    value_map.save(path, value_map.Map(np.full(shape, "."), rng.random(shape), move, mark, (0, 0)))
    assert max(pixels(path).shape) < 2600


def test_command_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "value.png"
    words = ["env", "solve", "maze", "layout=S./.G", "time_limit=10"]
    assert main([*words, "--gamma", "0.5", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["optimal"] == pytest.approx(0.5)
    assert pixels(out).shape[2] == 3
    assert main([*words, "--out", str(tmp_path / "value.txt")]) == 2
    assert main([*words, "--out", str(tmp_path / "nowhere" / "value.png")]) == 2
    assert main([*words, "--gamma", "2"]) == 2
    assert main(["env", "solve", "bandit", "--out", str(out)]) == 2
    assert "no value function to draw" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "message"), [("value.gif", "ends in .png, .svg, .pdf"), ("no/value.png", "does not exist")])
def test_refusals(tmp_path: Path, name: str, message: str) -> None:
    rows = value_map.StateTable(("s",), (("0",),), np.zeros(1), np.zeros(1, int), 1, 0)
    with pytest.raises(ValueError, match=message) as error:
        value_map.save(tmp_path / name, rows)
    assert "\n" not in str(error.value)
