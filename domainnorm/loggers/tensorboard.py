"""TensorBoard."""

from __future__ import annotations

from pathlib import Path

import cv2
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from domainnorm.loggers.base import RunLogger
from domainnorm.registry import register


@register
class TensorBoard(TensorBoardLogger, RunLogger):
    """TensorBoard event files: ``tensorboard --logdir RUN/tensorboard`` shows them.

    Args:
        folder: The run folder.
        run: Name of the run below it.
    """

    needs = ("tensorboard",)

    def __init__(self, folder: Path, run: str) -> None:
        super().__init__(folder / "tensorboard", name=run, version="", default_hp_metric=False)

    @rank_zero_only
    def log_figure(self, file: Path) -> None:
        """Log a PNG under its name."""
        pixels = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        self.experiment.add_image(file.stem, pixels, dataformats="HWC")

    @rank_zero_only
    def close(self, *, failed: bool) -> None:
        """Write what is not written yet."""
        if self._experiment is not None:
            self.finalize("failed" if failed else "success")
