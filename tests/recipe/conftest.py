from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

BASE = {
    "task": "classification",
    "backbone": "{name: resnet10t}",
    "data": "{name: scans, source: [clean], target: [colour_cast]}",
    "method": "source_only",
    "compare": "[]",
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a small good recipe with some keys replaced, added, or dropped (None)."""

    def make(**sections: str | None) -> str:
        lines = [
            f"{key}: {text}\n" for key, text in {**BASE, **sections}.items() if text is not None
        ]
        path = tmp_path / "recipe.yaml"
        path.write_text("".join(lines), encoding="utf-8")
        return str(path)

    return make
