"""Weights & Biases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from domainnorm.loggers.base import RunLogger, identity
from domainnorm.registry import register


@register
class WeightsAndBiases(WandbLogger, RunLogger):
    """Weights & Biases, offline (upload: ``wandb sync RUN/wandb/offline-run-*``) or online.

    Args:
        folder: The run folder.
        run: Name of the run below it.
        project: Name of the project.
        entity: User or team; null is the user who is logged in.
        mode: ``offline`` keeps everything in the run folder, ``online`` also uploads it.
    """

    needs = ("wandb",)

    def __init__(
        self,
        folder: Path,
        run: str,
        *,
        project: str = "domainnorm",
        entity: str | None = None,
        mode: Literal["offline", "online"] = "offline",
    ) -> None:
        import wandb  # noqa: PLC0415 - Lightning says what is wrong where there is none

        if mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # would reach out
        place = folder.resolve()
        super().__init__(
            name=run,
            save_dir=folder,
            id=identity(folder, run),
            project=project,
            entity=entity,
            mode=mode,
            reinit="create_new",  # a stage and its variants are open at once
            group=f"{place.parent.name}/{place.name}",
            settings=wandb.Settings(silent=True, console="off"),
        )
        # Lightning 2.6 passes it always, and wandb warns of it since it has no effect.
        self._wandb_init.pop("anonymous", None)

    @rank_zero_only
    def log_figure(self, file: Path) -> None:
        """Log an image under its name."""
        self.log_image(file.stem, [str(file)])

    @rank_zero_only
    def close(self, *, failed: bool) -> None:
        """End the run."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(failed))
