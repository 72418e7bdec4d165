"""Arguments and options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import complete

RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="Name under --dir, or a path.", autocompletion=complete.runs, show_default=False)
]
NoLive = Annotated[bool, typer.Option("--no-live", help="No live view.")]
PageOrPicture = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="A page or a picture: FILE.html, FILE.png.", show_default=False)
]
