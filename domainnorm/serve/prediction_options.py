"""How images are predicted."""

from __future__ import annotations

from dataclasses import dataclass

from domainnorm.data.dataset import checked_white
from domainnorm.errors import DomainNormError
from domainnorm.recipe.schema import Far, Unseen


@dataclass(frozen=True)
class PredictOptions:
    """How images are predicted.

    Args:
        domain: The known domain that all images are of; None where it is not told, or a table
            tells it.
        unseen: What becomes of images whose domain is not told; None: the recipe's ``condition``
            where that is an estimate, else its ``unseen``.
        far: What becomes of those of them that the encoder finds near no known domain; that of the
            recipe when None.
        batch_size: Images that are predicted together; ``data.eval_batch_size`` when None.
        white: Value of 16-bit files that is shown as white; as in training when None.

    Raises:
        DomainNormError: A batch of no images, or a wrong ``white``.
    """

    domain: str | None = None
    unseen: Unseen | None = None
    far: Far | None = None
    batch_size: int | None = None
    white: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise DomainNormError(f"batch_size: got {self.batch_size}, expected 1 or more")
        if self.white is not None:
            checked_white(self.white)
