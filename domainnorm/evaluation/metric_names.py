"""Names of metrics as words; without torch."""

from __future__ import annotations

_ABBREVIATIONS = {
    "ece": "ECE",
    "nll": "NLL",
    "macro_f1": "macro F1",
    "miou": "mean IoU",
    "iou": "IoU",
    "dice": "Dice",
    "boundary_iou": "boundary IoU",
    "auroc": "AUROC",
}


def readable(metric: str) -> str:
    """A metric's name as words, such as ``balanced accuracy``, ``ECE`` and ``IoU of sky``."""
    name, _, of_class = metric.partition("/")
    words = _ABBREVIATIONS.get(name, name.replace("_", " "))
    return f"{words} of {of_class}" if of_class else words


def sentence(text: str) -> str:
    """``text`` with a capital first letter; the others keep theirs."""
    return text[:1].upper() + text[1:]
