"""Values that options of norms may have; for `create_norm` and, without torch, for recipes."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin

from domainnorm.errors import unknown
from domainnorm.registry import Parameter

_COUNTS = {
    "rank": "1 or more; 'shared' has no rows",
    "stride": "1 (every pixel) or more",
    "num_clusters": "a positive number",
    **dict.fromkeys(
        ("num_groups", "embedding_size", "hidden", "map_channels", "spatial_axes"), "1 or more"
    ),
}


def problem_of(parameter: Parameter, value: Any) -> str:
    """What is wrong with the value of an option: ``got 5, expected …``; empty where nothing is."""
    words = get_args(parameter.annotation)
    if get_origin(parameter.annotation) is Literal and value not in words:
        return unknown("value", value, words)
    expected = _expected(parameter.name, value)
    return f"got {value!r}, expected {expected}" if expected else ""


def _expected(name: str, value: Any) -> str:
    """What is expected in the place of ``value``; empty where it fits."""
    if name in _COUNTS:
        if isinstance(value, float):
            return "a whole number"
        return "" if value >= 1 else _COUNTS[name]
    number = value if isinstance(value, (int, float)) and math.isfinite(value) else -1.0
    fits, expected = {
        "momentum": (
            value is None or 0 <= number <= 1,
            "a number in [0, 1], or None for the cumulative average",
        ),
        "alpha": (0 <= number <= 1, "a number in [0, 1]"),
        "dropout": (0 <= number < 1, "a probability in [0, 1)"),
        "eps": (number >= 0, "a number of at least 0"),
        "temperature": (number > 0, "a positive number"),
    }.get(name, (True, ""))
    return "" if fits else expected
