"""Lightning's chatter, down to what a user can act on."""

from __future__ import annotations

import logging
import warnings

_IGNORED = (
    ".*does not have many workers.*",  # workers are the recipe's choice
    "Checkpoint directory .* exists and is not empty",  # that is what resuming means
    "`LightningModule.configure_optimizers` returned `None`.*",  # adabn optimizes nothing
    ".*recommended to use `self.log\\('val/.*sync_dist.*",  # of the images of all ranks already
    ".*treespec, LeafSpec.*",  # Lightning 2.6 on torch 2.14, its own call
)

_LOGGERS = (
    "lightning.fabric.utilities.distributed",
    "lightning.fabric.utilities.rank_zero",
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.accelerators.cuda",
)


def quiet_lightning() -> None:
    """Hide banners about devices and tips, and warnings that never apply here."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _IGNORED:
        warnings.filterwarnings("ignore", message=message)
