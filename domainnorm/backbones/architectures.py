"""Names of timm's networks, without importing it: light commands would wait for torch."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# Offered where no name is near.
USUAL = ("resnet18", "resnet50", "tf_efficientnet_lite0", "mobilenetv3_small_050")
_REGISTERED = re.compile(r"@register_model\ndef (\w+)\(")


@cache
def architectures() -> frozenset[str]:
    """What the installed timm registers, as its sources say."""
    spec = find_spec("timm")
    places = (spec.submodule_search_locations or []) if spec else []
    files = [file for place in places for file in (Path(place) / "models").rglob("*.py")]
    return frozenset(
        name for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8"))
    )
