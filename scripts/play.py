"""`gumdrop env play`: play a world with the keyboard."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple

import typer

from .common import Plugins, Refused, Seed, check_env, figure
from .env import Id, Words

LEFT, DOWN, RIGHT, UP = ((b"\x1b[D", b"\x1bOD", b"a"), (b"\x1b[B", b"\x1bOB", b"s"),
                         (b"\x1b[C", b"\x1bOC", b"d"), (b"\x1b[A", b"\x1bOA", b"w"))  # fmt: skip
KEYS = {  # what an action is called -> the keys for it, as a terminal sends them
    "left": LEFT, "down": DOWN, "right": RIGHT, "up": UP, "turn left": LEFT, "turn right": RIGHT, "forward": UP,
    "up-left": (b"y",), "up-right": (b"u",), "down-left": (b"b",), "down-right": (b"n",), "stay": (b" ",),
}  # fmt: skip
SHOWN = {b" ": "space", LEFT[0]: "left", DOWN[0]: "down", RIGHT[0]: "right", UP[0]: "up"}
FOUR = ("left", "down", "right", "up")  # the order of our grids and of Gymnasium's
EIGHT = ("left", "down-left", "down", "down-right", "right", "up-right", "up", "up-left")
NAMES = {2: ("left", "right"), 3: ("left", "stay", "right"), 4: FOUR, 5: (*FOUR, "stay"), 8: EIGHT, 9: (*EIGHT, "stay")}
MOVES = {"four": FOUR, "eight": EIGHT, "turn": ("turn left", "turn right", "forward"), "fall": ("left", "right")}
FOREIGN = {  # Gymnasium's and MiniGrid's own, by the beginning of the id
    "FrozenLake-": FOUR, "CliffWalking-": ("up", "right", "down", "left"), "CartPole-": ("left", "right"),
    "MountainCar-": ("left", "stay", "right"), "Acrobot-": ("left", "stay", "right"),
    "Taxi-": ("down", "up", "right", "left", "pick up", "drop off"),
    "MiniGrid-": ("turn left", "turn right", "forward", "pick up", "drop", "toggle", "end"),
}  # fmt: skip
QUIT = (b"q", b"Q", b"\x04", b"\x1b")
Moves = dict[bytes, Any]  # key -> action: a whole number, or a direction of pushing


def play(
    id: Id,
    words: Words = None,
    seed: Seed = 0,
    plugin: Plugins = None,
    window: Annotated[bool, typer.Option("--window", help="Play in a window, not in the terminal.")] = False,
) -> None:
    """Play with arrow keys or w a s d (or the number of an action), space to stay or repeat, q to quit."""
    from ..configs.loader import parse_options

    options = parse_options(words or [], "env.")
    check_env(id, options)
    if window:
        from ..envs.draw.window import need_pygame

        need_pygame()  # before anything is compiled
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("play needs a terminal for keys and pictures: run it in one, or see `gumdrop rollout --help`")
    from ..envs.make import make

    env = make(id, options, num_envs=1, seed=seed, threads=1)
    try:
        with _windowed(env) if window else _terminal(env) as screen:
            _game(env, screen, seed)
    finally:
        env.close()


class Terminal(NamedTuple):
    """Where a game is seen and where its keys come from."""

    show: Callable[[str, str], None]  # (what is possible and what the last step brought, what the keys do)
    keys: Iterator[bytes]


def action_names(env: Any) -> tuple[str, ...]:
    """What the actions of a Discrete space are called.

    A world may say so itself (`action_names`, a tuple) or have an option `moves`; else boards have the directions of
    our grids. What nobody named is "action 7".
    """
    count, world, scene = int(env.action_space.n), getattr(env, "world", None), env.scene(0)
    names: tuple[str, ...] = tuple(str(name) for name in getattr(world, "action_names", ()))
    if not names and world is None:
        names = next((n for start, n in FOREIGN.items() if env.id.rpartition(":")[2].startswith(start)), ())
    elif not names and scene is not None and scene.cells.size:
        usual = NAMES.get(count, NAMES[5] if count > 5 else ())
        names = MOVES.get(str(getattr(getattr(world, "config", None), "moves", "")), usual)
        names = (*names, "stay") if len(names) == count - 1 and "stay" not in names else names
    return (*names[:count], *(f"action {k}" for k in range(len(names), count)))


def bindings(names: Sequence[str]) -> Moves:
    """Keys for actions: directions by KEYS, other names by their first free letter, the first ten by digits too."""
    moves: Moves = {}
    for k, name in enumerate(names):
        moves |= {key: k for key in KEYS.get(name, ()) if key not in moves}
    for k, name in enumerate(names):
        if name not in KEYS and not name.startswith("action "):
            letters = (c.encode() for c in name.lower() if "a" <= c <= "z")
            free = next((c for c in letters if c not in moves and c not in QUIT), None)
            if free:
                moves[free] = k
    return moves | ({str(k).encode(): k for k in range(len(names))} if len(names) <= 10 else {})


def pushes(size: int) -> Moves:
    """Keys for `size` continuous actions: the directions -1..1 of (first, second) number of a pair; `size` 1: of one."""
    one = {LEFT: (-1, 0), RIGHT: (1, 0), UP: (1, 0), DOWN: (-1, 0)}
    two = {LEFT: (-1, 0), RIGHT: (1, 0), UP: (0, 1), DOWN: (0, -1), KEYS["up-left"]: (-1, 1), KEYS["up-right"]: (1, 1),
           KEYS["down-left"]: (-1, -1), KEYS["down-right"]: (1, -1)}  # fmt: skip
    moves: Moves = {key: to for keys, to in (one if size == 1 else two).items() for key in keys}
    return moves | {b" ": (0, 0)}


def legend(names: Sequence[str], moves: Moves) -> str:
    """What the keys do, in one or a few lines."""
    parts = []
    for k, name in enumerate(names):
        keys = [SHOWN.get(key, key.decode()) for key, to in moves.items() if to == k and key[:2] != b"\x1bO"]
        if not name.startswith("action "):
            parts.append(f"{' '.join(keys)}: {name}")
    if len(parts) < len(names):
        parts.append(f"0-{len(names) - 1}: the number of an action" + (", then Enter" if len(names) > 10 else ""))
    lines = [""]
    for part in [*parts, "q quits"]:
        lines[-1:] = [f"{lines[-1]}   {part}".strip()] if len(lines[-1]) + len(part) < 100 else [lines[-1], part]
    return "\n".join(lines)


def action(key: bytes, count: int) -> int | None:
    """The action that `key` stands for where there are `count` of them without names, or None."""
    found: int | None = bindings(NAMES.get(count, ("action",) * count)).get(key)
    return found


class Chooser:
    """From keys to the action of a Discrete space: one key, or a number of several digits."""

    def __init__(self, env: Any) -> None:
        self.count = int(env.action_space.n)
        names = action_names(env)
        self._moves = bindings(names)
        self.legend = legend(names, self._moves)
        self._typed = ""

    def take(self, key: bytes) -> int | None:
        """The action that is complete with `key`, or None: an unknown key, or more digits may follow."""
        if self.count > 10 and key.isdigit():
            self._typed += key.decode()
            if 10 * int(self._typed) < self.count and int(self._typed) > 0:  # a further digit could follow
                return None
        elif key not in (b"\n", b"\r") or not self._typed:
            self._typed = ""
            return self._moves.get(key)
        number, self._typed = int(self._typed), ""
        return number if number < self.count else None


class Pusher:
    """From keys to the action of a Box space: arrows push to its bounds, digits say how hard."""

    def __init__(self, env: Any) -> None:
        import numpy as np

        space = env.action_space
        self._size, self._pair, self._strength = int(np.prod(space.shape)), 0, 1.0
        low, high = (np.broadcast_to(bound, space.shape).ravel().astype(np.float64) for bound in (space.low, space.high))
        self._low, self._high = np.where(np.isfinite(low), low, -1.0), np.where(np.isfinite(high), high, 1.0)
        self._moves, self._shape = pushes(self._size), space.shape
        words = "left right: push" if self._size == 1 else "arrows or w a s d, y u b n for diagonals: push"
        self.legend = f"{words}   space: nothing   1-9: with so many tenths of the force, 0: with all"
        self.legend += "   tab: the next two numbers" * (self._size > 2) + "   q quits"

    def take(self, key: bytes) -> Any:
        """The action, float32 of the space's shape, or None where `key` says how to push, or nothing."""
        import numpy as np

        if key.isdigit():
            self._strength = int(key) / 10 or 1.0
        if key == b"\t":
            self._pair = (self._pair + 2) % (self._size + self._size % 2)
        if key not in self._moves:
            return None
        rest = np.clip(0.0, self._low, self._high)  # 0, or the bound nearest to it
        push = rest.copy()
        for k, to in enumerate(self._moves[key], start=self._pair):
            if to and k < self._size:
                push[k] += self._strength * ((self._high if to > 0 else self._low)[k] - rest[k])
        return push.reshape(self._shape).astype(np.float32)


def _game(env: Any, screen: Terminal, seed: int) -> None:
    import numpy as np

    from ..envs.checks.conformance import random_actions

    chooser: Any = (Chooser if hasattr(env.action_space, "n") else Pusher)(env)
    generator = np.random.default_rng(seed)  # moves the other agents
    best, note = _best(env), ""
    while True:
        if env.num_agents > 1:
            note = note or f"you are agent 1 of {env.num_agents}; the others move at random"
        screen.show(f"{best}{note}", chooser.legend)
        move = None
        while move is None:
            key = next(screen.keys, b"q")
            if key in QUIT:
                return
            move = chooser.take(key)
        actions = random_actions(env, 1, int(generator.integers(2**63)))[0]
        actions[0, 0] = move
        step = env.step(actions)
        note = f"reward {step.reward[0, 0]:g}"
        if step.terminated[0] or step.truncated[0]:
            ended = env.episodes()
            how = "the end" if step.terminated[0] else "time is up"
            total = figure(float(ended.return_[0, 0]))
            note = f"{how}: return {total} in {int(ended.length[0])} steps; a new episode"
            best = _best(env)


def _best(env: Any) -> str:
    """What is possible in the episode that begins now."""
    lines = env.yardstick()
    if lines is None:
        return ""
    random, optimal = (figure(float(line[0])) for line in (lines.random, lines.optimal))
    return f"random {random}, optimal {optimal} ({lines.meaning})\n"


@contextmanager
def _terminal(env: Any) -> Iterator[Terminal]:
    """Play in the terminal: pictures of characters."""
    from ..envs.draw import render

    def show(note: str, keys: str) -> None:
        sys.stdout.write(f"\x1b[2J\x1b[H{render.text(env, 0, color=True)}\n\n{note}\n{keys}\n")
        sys.stdout.flush()

    with _keys() as keys:
        yield Terminal(show, keys)


@contextmanager
def _windowed(env: Any) -> Iterator[Terminal]:
    """Play in a window: the terminal only says, once, what the keys do."""
    from ..envs.draw import render
    from ..envs.draw.window import Window

    window = Window(f"gumdrop {env.id}")
    told: set[str] = set()

    def show(note: str, keys: str) -> None:
        if keys not in told:
            told.add(keys)
            print(keys, flush=True)
        window.set_title(f"gumdrop {env.id}   {' '.join(note.split())}")
        window.show(render.rgb(env, 0))
        window.need_screen()

    def pressed() -> Iterator[bytes]:
        while not window.closed:
            yield from window.keys()
            window.wait(0.01)

    try:
        yield Terminal(show, pressed())
    finally:
        window.close()


@contextmanager
def _keys() -> Iterator[Iterator[bytes]]:
    """Keys as they are pressed, without Enter; the terminal is put back afterwards whatever happens."""
    try:
        import termios
        import tty
    except ImportError:
        raise Refused("play needs a Unix terminal") from None
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    try:
        tty.setcbreak(handle)
        sys.stdout.write("\x1b[?25l")
        yield _read(handle)
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
        sys.stdout.write("\x1b[?25h")
        sys.stdout.flush()


def _read(handle: int) -> Iterator[bytes]:
    import select

    rest = b""
    while data := os.read(handle, 64):
        keys, rest = split_keys(rest + data)
        yield from keys
        if rest and not select.select([handle], [], [], 0.05)[0]:  # nothing follows: it was the escape key itself
            if rest == b"\x1b":
                yield rest
            rest = b""


def split_keys(data: bytes) -> tuple[list[bytes], bytes]:
    """What came, key by key, and the beginning of a key whose end is still to come.

    An escape sequence is one key (ECMA-48, 5.4: parameters, then a final byte from @ to ~), and so is escape with a letter.
    """
    keys: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 1
        if data[at : at + 1] == b"\x1b":
            end = at + 2
            if data[at + 1 : at + 2] in (b"[", b"O"):
                while end < len(data) and not 0x40 <= data[end] <= 0x7E:
                    end += 1
                end += 1
            if end > len(data):
                return keys, data[at:]
        keys.append(data[at:end])
        at = end
    return keys, b""
