"""How batches are made."""

from __future__ import annotations

from dataclasses import dataclass

from domainnorm.errors import DataError


@dataclass(frozen=True)
class Loading:
    """How batches are made.

    Args:
        batch_size: Training images of one batch on one rank, all domains together.
        eval_batch_size: Images of one validation or test batch on one rank.
        num_workers: Processes that decode and augment; 0 does it in the main process.
        seed: Non-negative seed of batches and augmentation.
        original_masks: Whether test batches carry masks at their own sizes too, a list of (h, w)
            as ``original``.
    """

    batch_size: int = 32
    eval_batch_size: int = 64
    num_workers: int = 0
    seed: int = 0
    original_masks: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("eval_batch_size", 1),
            ("num_workers", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise DataError(f"{name}: {getattr(self, name)}, expected {least} or more")
