"""Strict JSON, which every reader accepts: nan, which JSON does not have, is null."""

from __future__ import annotations

import json
import math
from os import PathLike
from typing import Any

import numpy as np

from domainnorm.storage import replace_text


def write_json(content: Any, path: str | PathLike[str]) -> None:
    """Write dicts, sequences, arrays and numbers as indented JSON, see `replace_text`."""
    text = json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False)
    replace_text(path, text + "\n")


def number_of(value: float | None) -> float:
    """The number that a file has; null is nan."""
    return math.nan if value is None else float(value)


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple | np.ndarray):
        return [_plain(value) for value in content]
    if isinstance(content, np.generic):
        return _plain(content.item())
    return None if isinstance(content, float) and math.isnan(content) else content
