"""A window on the screen for `human` rendering and `gumdrop env play --window`; pygame is imported late."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled

from ...store.arrays import Array

ARROWS = {"left": b"\x1b[D", "down": b"\x1b[B", "right": b"\x1b[C", "up": b"\x1b[A"}  # as a terminal sends them
NUMPAD = {"1": b"b", "2": b"\x1b[B", "3": b"n", "4": b"\x1b[D", "5": b" ", "6": b"\x1b[C", "7": b"y", "8": b"\x1b[A", "9": b"u"}


def need_pygame() -> Any:
    """The module pygame. Raises Gymnasium's DependencyNotInstalled, one line, where it is missing."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it greets on stdout otherwise
    try:
        return importlib.import_module("pygame")
    except ImportError:
        raise DependencyNotInstalled("a window needs pygame: pip install 'gumdrop[play]'") from None


class Window:
    """Shows pictures, at most `fps` a second; it opens with the first one, and once closed it stays closed."""

    def __init__(self, title: str, fps: float = 0) -> None:
        self.title = title
        self.fps = fps  # 0: no waiting
        self.closed = False  # by the user, or by close()
        self._pygame = need_pygame()
        self._clock = self._pygame.time.Clock()
        self._surface: Any = None
        self._pressed: list[bytes] = []

    def show(self, picture: Array) -> None:
        """Show `picture`, uint8 (H, W, 3), and wait for the end of the last frame's time. Nothing where closed."""
        if self.closed:
            return
        pygame = self._pygame
        size = (picture.shape[1], picture.shape[0])
        if self._surface is None or self._surface.get_size() != size:
            try:
                pygame.display.init()
                self._surface = pygame.display.set_mode(size)
            except pygame.error as error:
                raise DependencyNotInstalled(
                    f"no window can be opened here ({error}): use render_mode rgb_array, or play in the terminal"
                ) from None
            pygame.display.set_caption(self.title)
        pygame.surfarray.blit_array(self._surface, np.ascontiguousarray(picture.swapaxes(0, 1)))
        pygame.display.flip()
        self._listen()
        if self.fps:
            self._clock.tick(self.fps)

    def need_screen(self) -> None:
        """Raise DependencyNotInstalled where SDL, for want of a screen, drew into memory and nobody sees the window.

        Who sets SDL_VIDEODRIVER asked for that.
        """
        if self._surface is None or "SDL_VIDEODRIVER" in os.environ:
            return
        if self._pygame.display.get_driver() in ("offscreen", "dummy"):
            raise DependencyNotInstalled("there is no screen for a window here: play in the terminal, without --window")

    def set_title(self, title: str) -> None:
        self.title = title
        if self._surface is not None and not self.closed:
            self._pygame.display.set_caption(title)

    def keys(self) -> list[bytes]:
        """Keys pressed since the last call, as a terminal would send them: arrows as escape sequences."""
        self._listen()
        pressed, self._pressed = self._pressed, []
        return pressed

    def wait(self, seconds: float) -> None:
        self._pygame.time.wait(round(1000 * seconds))

    def _listen(self) -> None:
        """Take the events from the queue, or the system thinks that the window hangs."""
        if self._surface is None or self.closed:
            return
        pygame = self._pygame
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                self.close()
                return
            if event.type == pygame.KEYDOWN and (key := self._key(event)):
                self._pressed.append(key)

    def _key(self, event: Any) -> bytes:
        name = self._pygame.key.name(event.key)
        if name in ARROWS:
            return ARROWS[name]
        if name.startswith("[") and name[1:-1] in NUMPAD:  # [7]: the numeric pad, apart from the digits
            return NUMPAD[name[1:-1]]
        if name in ("return", "enter"):
            return b"\n"
        return str(getattr(event, "unicode", "")).encode()

    def close(self) -> None:
        """Close the window. May be called twice."""
        if self._surface is not None and not self.closed:
            self._surface = None
            self._pygame.display.quit()
        self.closed = True
