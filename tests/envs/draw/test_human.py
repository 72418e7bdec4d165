"""Human rendering and playing: windows are opened by pygame into memory, keys are posted as a person would press them."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled

from gumdrop.envs import registry
from gumdrop.envs.draw import render, window
from gumdrop.envs.make import make
from gumdrop.envs.views.gym_view import GymView
from gumdrop.envs.views.parallel_view import ParallelView
from gumdrop.envs.views.vector_view import VectorView
from gumdrop.scripts import cli, play

pygame: Any = pytest.importorskip("pygame", reason="windows need pygame-ce, from the extra `play`")


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(window.Window, "__init__", _in_no_hurry(window.Window.__init__))
    yield
    pygame.display.quit()


def _in_no_hurry(make: Any) -> Any:
    return lambda self, title, fps=0: make(self, title, 0)


def shown(view: Any) -> Any:
    """The picture in the view's window, uint8 (H, W, 3)."""
    return pygame.surfarray.array3d(view._window._surface).swapaxes(0, 1)


def test_the_window_shows_each_step_and_the_game_is_the_same() -> None:
    human = gymnasium.make("gumdrop/Maze-v0", render_mode="human")
    silent = gymnasium.make("gumdrop/Maze-v0", render_mode="rgb_array")
    view: Any = human.unwrapped
    for env in (human, silent):
        env.action_space.seed(1)
    first, _ = human.reset(seed=4)
    assert (first == silent.reset(seed=4)[0]).all()
    moved = 0
    for _ in range(12):
        assert (shown(view) == silent.render()).all()
        assert human.render() is None
        before, action = shown(view), silent.action_space.sample()
        ours, theirs = human.step(action), silent.step(action)
        assert (ours[0] == theirs[0]).all() and ours[1:] == theirs[1:]
        moved += bool((shown(view) != before).any())
    assert moved > 3
    human.close()
    assert view._window.closed and not pygame.display.get_init()
    human.close()


def test_vector_and_parallel_views_show_copy_0() -> None:
    both = VectorView("candy", num_envs=3, render_mode="human")
    both.reset(seed=2)
    both.step(np.array([0, 1, 2]))
    assert (shown(both) == render.rgb(both.engine, 0)).all() and (shown(both) != render.rgb(both.engine, 1)).any()
    assert both.render() is None
    both.close()
    pair = ParallelView("candy", agents=2, render_mode="human")
    pair.reset(seed=2)
    pair.step({"agent_0": 2, "agent_1": 1})
    assert (shown(pair) == render.rgb(pair.engine, 0)).all() and pair.render() is None
    pair.close()


def test_a_closed_window_stays_closed_and_the_game_goes_on() -> None:
    view = GymView("maze", render_mode="human")
    view.reset(seed=0)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    for _ in range(3):
        view.step(0)
    assert view._window is not None and view._window.closed and not pygame.display.get_init()
    view.close()


def test_without_pygame_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    for made in (lambda: GymView("maze", render_mode="human"), lambda: ParallelView("candy", render_mode="human")):
        with pytest.raises(DependencyNotInstalled, match=r"pip install 'gumdrop\[play\]'$"):
            made()
    assert cli.main(["env", "play", "maze", "--window"]) == 2
    assert capsys.readouterr().err == "gumdrop: a window needs pygame: pip install 'gumdrop[play]'\n"


def test_without_a_screen_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
    view = GymView("maze", render_mode="human")
    with pytest.raises(DependencyNotInstalled, match="no window can be opened here"):
        view.reset(seed=0)
    monkeypatch.setenv("SDL_VIDEODRIVER", "offscreen")
    one = window.Window("x")
    one.show(np.zeros((9, 9, 3), np.uint8))
    one.need_screen()  # asked for
    monkeypatch.delenv("SDL_VIDEODRIVER")
    with pytest.raises(DependencyNotInstalled, match="no screen"):
        one.need_screen()
    one.close()


def test_keys_of_a_window_are_those_of_a_terminal() -> None:
    one = window.Window("x")
    assert one.keys() == []
    one.show(np.zeros((9, 9, 3), np.uint8))
    pressed = [(pygame.K_LEFT, ""), (pygame.K_KP7, "7"), (pygame.K_KP6, "6"), (pygame.K_7, "7"), (pygame.K_RETURN, "\r"),
               (pygame.K_ESCAPE, "\x1b"), (pygame.K_w, "w"), (pygame.K_LSHIFT, "")]  # fmt: skip
    for key, text in pressed:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode=text))
    assert one.keys() == [b"\x1b[D", b"y", b"\x1b[C", b"7", b"\n", b"\x1b", b"w"]
    one.close()
    one.close()


def test_play_in_a_window(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps to the right reach the goal; what was played is in the window's title, q ends the game."""
    titles: list[str] = []
    set_title = window.Window.set_title
    monkeypatch.setattr(window.Window, "set_title", lambda self, title: (titles.append(title), set_title(self, title))[1])
    listen = window.Window.keys
    script = [(pygame.K_RIGHT, ""), (pygame.K_d, "d"), (pygame.K_q, "q")]

    def keys(self: Any) -> list[bytes]:
        if script:
            key, text = script.pop(0)
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode=text))
        return listen(self)

    monkeypatch.setattr(window.Window, "keys", keys)
    assert cli.main(["env", "play", "maze", "layout=S.G", "slip=0", "view=3", "--window"]) == 0
    assert len(titles) == 3 and "optimal 1.000" in titles[0]
    assert "reward 0" in titles[1] and "the end: return 1.000 in 2 steps" in titles[2]
    assert "right d 2: right" in capsys.readouterr().out
    assert not pygame.display.get_init()


def test_closing_a_window_closes_it_for_good() -> None:
    one = window.Window("x")
    one.show(np.zeros((9, 9, 3), np.uint8))
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert one.keys() == [] and one.closed and one.keys() == []
    one.show(np.zeros((9, 9, 3), np.uint8))
    assert not pygame.display.get_init(), "it does not open again"


class Pretend:
    """The part of a BatchEnv that choosing an action uses."""

    def __init__(self, space: Any, world: Any = None, scene: Any = None, id: str = "x") -> None:
        self.action_space, self.world, self.id, self._scene = space, world, id, scene

    def scene(self, i: int) -> Any:
        return self._scene


class Named:
    action_names = ("cooperate", "defect", "stay", "zap", "Zip", "say q")


BOARD = render.Scene(np.full((2, 2), "."))


def options(**values: Any) -> Any:
    return type("World", (), {"config": type("Config", (), values)()})()


def test_keys_by_the_names_of_actions() -> None:
    space = gymnasium.spaces.Discrete
    turn = play.Chooser(Pretend(space(3), options(moves="turn"), BOARD))
    assert [turn.take(k) for k in (b"\x1b[D", b"d", b"w", b"\x1b[B", b" ", b"1", b"5")] == [0, 1, 2, None, None, 1, None]
    assert "left a" in turn.legend and "turn left" in turn.legend and "forward" in turn.legend and "q quits" in turn.legend
    eight = play.Chooser(Pretend(space(9), options(moves="eight"), BOARD))
    assert [eight.take(k) for k in (b"a", b"b", b"s", b"n", b"d", b"u", b"w", b"y", b" ")] == list(range(9))
    named = play.Chooser(Pretend(space(6), Named(), BOARD))
    assert [named.take(k) for k in (b"c", b"d", b" ", b"z", b"i", b"s", b"q")] == [0, 1, 2, 3, 4, 5, None]
    cliff = play.Chooser(Pretend(space(4), None, None, "CliffWalking-v1"))
    assert [cliff.take(k) for k in (b"w", b"d", b"s", b"a")] == [0, 1, 2, 3]
    more = play.Chooser(Pretend(space(7), options(), BOARD))  # nobody named the last two
    assert [more.take(k) for k in (b"a", b"w", b" ", b"6")] == [0, 3, 4, 6] and "0-6: the number" in more.legend
    bars = play.Chooser(Pretend(space(4), options(), None))
    assert [bars.take(k) for k in (b"a", b"3")] == [None, 3] and "0-3: the number of an action" in bars.legend


def test_numbers_of_several_digits() -> None:
    many = play.Chooser(Pretend(gymnasium.spaces.Discrete(25), options(), None))
    assert "0-24" in many.legend and "Enter" in many.legend

    def typed(keys: bytes) -> list[Any]:
        return [many.take(bytes([k])) for k in keys]

    assert typed(b"24") == [None, 24]
    assert typed(b"3") == [3], "30 and more are none"
    assert typed(b"2\n") == [None, 2]
    assert typed(b"0") == [0]
    assert typed(b"29") == [None, None] and typed(b"1\n") == [None, 1]
    assert typed(b"1x2\n") == [None, None, None, 2], "another key takes the digits back"
    assert typed(b"\n") == [None]


def test_arrows_push_continuous_actions() -> None:
    box = gymnasium.spaces.Box
    plane = play.Pusher(Pretend(box(np.array([-0.1, -1], np.float32), np.array([0.2, 1], np.float32))))

    def pushed(pusher: Any, key: bytes) -> Any:
        return pusher.take(key).tolist()

    assert pushed(plane, b"\x1b[C") == pytest.approx([0.2, 0]) and pushed(plane, b"a") == pytest.approx([-0.1, 0])
    assert pushed(plane, b"\x1b[A") == [0, 1] and pushed(plane, b"s") == [0, -1] and pushed(plane, b" ") == [0, 0]
    assert pushed(plane, b"y") == pytest.approx([-0.1, 1])
    assert plane.take(b"5") is None and pushed(plane, b"d") == pytest.approx([0.1, 0])
    assert plane.take(b"0") is None and pushed(plane, b"d") == pytest.approx([0.2, 0])
    line = play.Pusher(Pretend(box(-2, 2, (1,))))
    assert [pushed(line, k) for k in (b"a", b"w", b" ")] == [[-2], [2], [0]]
    gas = play.Pusher(Pretend(box(np.array([0.5, -np.inf, 0], np.float32), np.array([1, np.inf, 4], np.float32))))
    assert pushed(gas, b" ") == [0.5, 0, 0] and pushed(gas, b"w") == [0.5, 1, 0] and pushed(gas, b"s") == [0.5, -1, 0]
    assert gas.take(b"\t") is None and pushed(gas, b"d") == [0.5, 0, 4] and pushed(gas, b"w") == [0.5, 0, 0]
    assert gas.take(b"\t") is None and pushed(gas, b"d") == [1, 0, 0]


def test_every_world_can_be_played() -> None:
    """All ids, a few keys each, without a terminal: nothing raises, and each legend says how to leave."""
    for id in [*registry.worlds(), "point-maze"]:
        env, seen = make(id, num_envs=1), []
        keys = iter([b"a", b"w", b"3", b"x", b" ", b"1", b"\n", b"d", b"q", b"w"])
        play._game(env, play.Terminal(lambda note, keys, seen=seen: seen.append((note, keys)), keys), 0)
        assert len(seen) >= 2 and all("q quits" in legend for _, legend in seen), id
        assert list(keys) == [b"w"], id
        env.close()


def test_pygame_is_imported_late() -> None:
    """Importing the views, as every Gymnasium user does, must not start SDL."""
    import subprocess

    code = "import sys, gumdrop.envs.views.gym_view, gumdrop.scripts.play; print('pygame' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
    assert importlib.util.find_spec("pygame") is not None
