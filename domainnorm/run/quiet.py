"""Lightning's chatter, down to what a user can act on."""

from __future__ import annotations

import logging
import warnings

_IGNORED = (
    ".*does not have many workers.*",  # workers are the recipe's choice
    "Checkpoint directory .* exists and is not empty",  # that is what resuming means
    "`LightningModule.configure_optimizers` returned `None`.*",  # adabn optimizes nothing
    ".*treespec, LeafSpec.*",  # Lightning 2.6 on torch 2.14, its own call
)


def quiet_lightning() -> None:
    """Hide banners about devices and tips, and warnings that never apply here."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _IGNORED:
        warnings.filterwarnings("ignore", message=message)
