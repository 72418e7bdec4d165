"""`gumdrop env play`: play a world with the keyboard."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .common import Refused, Seed, check_env, figure
from .env import Id, Words

KEYS = {  # what a terminal sends -> direction
    b"\x1b[D": "left", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[A": "up",
    b"\x1bOD": "left", b"\x1bOB": "down", b"\x1bOC": "right", b"\x1bOA": "up",
    b"a": "left", b"s": "down", b"d": "right", b"w": "up",
}  # fmt: skip
FOUR = {"left": 0, "down": 1, "right": 2, "up": 3}  # the order of our grids and of Gymnasium's


def play(id: Id, words: Words = None, seed: Seed = 0) -> None:
    """Play with arrow keys or w a s d (or the number of an action), space to stay or repeat, q to quit."""
    from ..configs.loader import parse_options

    options = parse_options(words or [], "env.")
    check_env(id, options)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("play needs a terminal for keys and pictures: run it in one, or see `gumdrop rollout --help`")
    from ..envs import registry

    env = registry.make(id, options, num_envs=1, seed=seed, threads=1)
    if not hasattr(env.action_space, "n"):
        raise Refused(f"{id} has continuous actions {env.action_space}: play needs a choice of keys")
    try:
        with _keys() as keys:
            _game(env, keys, seed)
    finally:
        env.close()


def action(key: bytes, count: int) -> int | None:
    """The action that `key` stands for where there are `count` of them, or None."""
    if key.isdigit() and len(key) == 1:
        return int(key) if int(key) < count else None
    if key == b" " and count == 5:
        return 4  # stay
    direction = KEYS.get(key)
    if direction is None:
        return None
    if count >= 4:
        return FOUR[direction]
    return {"left": 0, "right": count - 1}.get(direction)


def _game(env: Any, keys: Iterator[bytes], seed: int) -> None:
    import numpy as np

    from ..envs import render

    count = int(env.action_space.n)
    generator = np.random.default_rng(seed)  # moves the other agents
    best, note = _best(env), ""
    while True:
        if env.num_agents > 1:
            note = note or f"you are agent 1 of {env.num_agents}; the others move at random"
        picture = render.text(env, 0, color=True)
        sys.stdout.write(f"\x1b[2J\x1b[H{picture}\n\n{best}{note}\narrows or w a s d or 0-{min(count, 10) - 1}, q quits\n")
        sys.stdout.flush()
        move = None
        while move is None:
            key = next(keys, b"q")
            if key in (b"q", b"Q", b"\x04", b"\x1b"):
                return
            move = action(key, count)
        actions = generator.integers(0, count, (1, env.num_agents))
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
    while data := os.read(handle, 64):
        yield from split_keys(data)


def split_keys(data: bytes) -> list[bytes]:
    """What one read brought, key by key: an escape sequence is one key."""
    keys = []
    at = 0
    while at < len(data):
        size = 3 if data[at : at + 2] in (b"\x1b[", b"\x1bO") and len(data) >= at + 3 else 1
        keys.append(data[at : at + size])
        at += size
    return keys
