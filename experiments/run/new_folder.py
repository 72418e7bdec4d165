"""The folder of a new run."""

from __future__ import annotations

import re
from pathlib import Path


def new_folder(root: Path, name: str, default: str) -> Path:
    """Make a folder that was not there: `name`, or `default` with the next free number. Raises ValueError."""
    root.mkdir(parents=True, exist_ok=True)
    if name:
        folder = root / name
        try:
            folder.mkdir()
        except FileExistsError:
            way = f"`gumdrop resume {name}` goes on with it, another --name begins anew"
            raise ValueError(f"{folder} exists already: {way}") from None
        return folder
    stem = re.sub(r"(?:[^\w.+=@-]|\.\.+|(?<=\W)-)+", "-", default).strip("-.")[:80] or "run"
    taken = [re.fullmatch(re.escape(stem) + r"-(\d{4,})", path.name) for path in root.iterdir()]
    number = max((int(match[1]) for match in taken if match), default=0)
    while True:  # another process may take the same number at the same moment
        number += 1
        folder = root / f"{stem}-{number:04d}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
