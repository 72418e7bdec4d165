"""TensorBoard as a copy of a run's metrics."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ....store.json_lines import plain
from ....store.run_folder import RunFolder


class TensorBoard:
    """Event files in `RUN/tensorboard`; the step is env_steps."""

    name = "TensorBoard"

    def __init__(self, run: RunFolder) -> None:
        self.folder = run.tensorboard_path
        self._writer: Any = None
        self._resume = False
        self._module: Any = None

    def start(self, resume: bool) -> None:
        self._resume = resume
        try:
            self._module = importlib.import_module("torch.utils.tensorboard")
        except ImportError:
            raise RuntimeError("it is not installed: pip install 'gumdrop[tensorboard]'") from None

    def log(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        step = int(metrics.get("env_steps", metrics.get("updates", 0)))
        if self._writer is None:
            # A resumed run repeats the rows after its checkpoint: TensorBoard forgets the earlier ones.
            purge = step if self._resume else None
            self._writer = self._module.SummaryWriter(str(self.folder), purge_step=purge)
        for key, value in [*metrics.items(), *((f"timing/{key}", value) for key, value in timing.items())]:
            value = plain(value)
            if isinstance(value, int | float):
                self._writer.add_scalar(key, value, step)

    def news(self) -> str:
        return ""

    def close(self, seconds: float) -> str:
        if self._writer is not None:
            self._writer.close()
        return ""
