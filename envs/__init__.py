"""Worlds and everything that shows them: engine, views, external environments, checks; nothing of learning.

This file only announces the worlds' ids to Gymnasium. `gumdrop --help` passes here: keep it cheap to import.
"""

from __future__ import annotations

import sys


def announce() -> None:
    """Make our ids known to Gymnasium: now if it is imported already, else right after it is.

    Gymnasium has loaded no plugins by entry point since 1.0: a package registers when it is imported. Importing Gymnasium here
    would cost every `gumdrop --help` a tenth of a second, so a finder waits for it (`after_import`).
    """
    if "gymnasium" in sys.modules:
        _register_declared()
    else:
        from .after_import import after_import

        after_import("gymnasium", _register_declared)


def _register_declared() -> None:
    from .declared import declared_worlds
    from .gym_ids import register_ids

    register_ids(declared_worlds())
