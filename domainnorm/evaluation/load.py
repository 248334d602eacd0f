"""Files of predictions of any kind."""

from __future__ import annotations

import os

from domainnorm.errors import CheckpointError
from domainnorm.evaluation.evaluated import Evaluated, read_kind
from domainnorm.evaluation.multilabel import MultiLabelPredictions
from domainnorm.evaluation.predictions import Predictions
from domainnorm.evaluation.segmentation import SegmentationCounts

_CLASSES: tuple[type[Evaluated], ...] = (Predictions, SegmentationCounts, MultiLabelPredictions)
_KINDS = {one.kind: one for one in _CLASSES}


def load_evaluated(path: str | os.PathLike[str]) -> Evaluated:
    """Read what `Evaluated.save` wrote, as the class that its metadata names.

    Raises:
        CheckpointError: The file is missing, truncated or of an unknown kind.
    """
    kind = read_kind(path)
    if kind not in _KINDS:
        raise CheckpointError(
            f"{path}: predictions of the kind '{kind}', expected one of {', '.join(_KINDS)}; a "
            "newer version may have written them"
        )
    return _KINDS[kind].load(path)
