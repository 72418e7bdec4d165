"""gumdrop: reinforcement learning with exact yardsticks. Train an agent and know how far it is from the best possible.

    import gumdrop as gd

    run = gd.train("cartpole-fast", seed=1)
    print(run.evaluate())

`make`, `train`, `load`, `evaluate`, `compare`, `agents`, `worlds`, `Run` and what they return are stable; modules are not.
Importing the package is cheap: no numba, no torch, no numpy, not even Gymnasium. It announces the worlds to Gymnasium, so that
`gymnasium.make("gumdrop/Candy-v0")` works afterwards.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .envs import announce

if TYPE_CHECKING:
    from .experiments.api import Metrics as Metrics
    from .experiments.api import Run as Run
    from .experiments.api import Score as Score
    from .experiments.api import agents as agents
    from .experiments.api import compare as compare
    from .experiments.api import evaluate as evaluate
    from .experiments.api import load as load
    from .experiments.api import make as make
    from .experiments.api import train as train
    from .experiments.api import worlds as worlds
    from .experiments.run.policy import Policy as Policy

__version__ = "0.1.0"
__all__ = [
    "Metrics", "Policy", "Run", "Score", "__version__", "agents", "compare", "evaluate", "load", "make", "train", "worlds",
]  # fmt: skip

# OpenMP's default is to spin for milliseconds after each parallel loop, on a core that somebody else needs: see
# docs/decisions/003-threads.md. It is read when the first library with OpenMP is loaded.
if not os.environ.get("OMP_WAIT_POLICY"):
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

announce()


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name == "agents":  # the subpackage of that name, which can be called: importing it would hide a function
        return import_module(f"{__name__}.agents")
    found = getattr(import_module(f"{__name__}.experiments.api"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
