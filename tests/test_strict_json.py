from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainnorm.evaluation import write_json


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": float("nan")}, {"a": None}),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        ({"n": np.int64(3), "x": np.float64("nan")}, {"n": 3, "x": None}),
        (("α", 1, None), ["α", 1, None]),
    ],
)
def test_every_reader_accepts_the_file(tmp_path: Path, content: Any, expected: Any) -> None:
    write_json(content, tmp_path / "file.json")
    assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8")) == expected
