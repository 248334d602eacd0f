"""What happens at the edges of an epoch: reseeding, a line in the log, a line on the screen."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from domainnorm.storage import replace_text


class EpochSeed(Callback):
    """Reseeds torch, numpy and random from (seed, epoch, rank) when an epoch starts.

    An epoch then depends on no generator state, so a resumed run needs none.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the batches of the epoch that a resumed run goes on with.

        Lightning 2.6 has made the iterator by now, while the epoch was still the one before the
        checkpoint (``setup_data``), or 0 where a schedule asked for ``estimated_stepping_batches``.
        """
        if trainer.current_epoch > 0:
            iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reseed."""
        mixed = hash((self.seed, trainer.current_epoch, trainer.global_rank, 0x5EED)) % 2**32
        seed_everything(mixed, verbose=False)


class EpochLog(Callback):
    """One row of logged values per epoch in a CSV file; a resumed run goes on in the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row of this epoch, instead of any row that a killed run left for it."""
        values = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
        if not values or not trainer.is_global_zero:
            return  # a method without a loss has no curve to draw
        row = {"epoch": str(trainer.current_epoch), "step": str(trainer.global_step)}
        row |= {key: "" if math.isnan(value) else repr(value) for key, value in values.items()}
        earlier = [old for old in self._rows() if int(old["epoch"]) < trainer.current_epoch]
        rows = [*earlier, row]
        names = list(dict.fromkeys(name for one in rows for name in one))
        lines = [names, *([one.get(name, "") for name in names] for one in rows)]
        replace_text(self.path, "".join(",".join(line) + "\n" for line in lines))

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


class EpochLines(Callback):
    """Progress where there is no terminal to draw a bar on: a line every few seconds."""

    def __init__(self, every_seconds: float = 10.0) -> None:
        self.every_seconds = every_seconds
        self._shown = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print epoch and loss, unless a line was printed just before."""
        now = time.monotonic()
        if now - self._shown < self.every_seconds or not trainer.is_global_zero:
            return
        self._shown = now
        loss = trainer.callback_metrics.get("train/loss")
        shown = "" if loss is None else f"  loss {float(loss):.3f}"
        print(f"      epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{shown}", flush=True)
