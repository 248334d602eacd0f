"""Which weights of a network its file does not hold."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import timm

_LOADER = logging.getLogger("timm.models._builder")
_MISSING = re.compile(r"Missing keys \((.*)\) discovered while loading")


@contextmanager
def missing_weights(architecture: str) -> Iterator[list[str]]:
    """Collect weights and biases that timm finds missing, besides the head, in creating a network.

    Where the number of classes differs, timm loads what fits and tells the rest in its log alone,
    below the level that is shown: weights of another network would leave all of it untrained. The
    names that such a file has instead, which follow, are not shown.

    Args:
        architecture: Name of the network, by which timm knows the head; an encoder has none, but
            its weights are loaded before it is cut off.
    """
    heads = timm.models.get_pretrained_cfg_value(architecture, "classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    missing: list[str] = []
    own, shown = _LOADER.level, _LOADER.getEffectiveLevel()

    def look(record: logging.LogRecord) -> bool:
        if match := _MISSING.match(record.getMessage()):
            missing.extend(
                name
                for name in match[1].split(", ")
                if name.endswith((".weight", ".bias")) and name.rpartition(".")[0] not in heads
            )
        return record.levelno >= shown and not missing

    _LOADER.addFilter(look)
    _LOADER.setLevel(min(shown, logging.INFO))
    try:
        yield missing
    finally:
        _LOADER.setLevel(own)
        _LOADER.removeFilter(look)
