from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from domainnorm.data import Preprocessing
from domainnorm.data.datasets import Scans

Row = tuple[str, str, str, str, str]


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing(32, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture(scope="session")
def scans() -> Scans:
    return Scans(per_domain=60)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """A root with two domains, two classes and ``count`` images of each."""

    def make(count: int = 6, names: Sequence[int] | None = None) -> Path:
        for domain in ("day", "night"):
            for label in ("cat", "dog"):
                folder = tmp_path / domain / label
                folder.mkdir(parents=True, exist_ok=True)
                for number in names or range(count):
                    pixels = np.full((8, 10, 3), number, np.uint8)
                    cv2.imwrite(str(folder / f"{number:02d}.png"), pixels)
        return tmp_path

    return make


@pytest.fixture
def write_table() -> Callable[[Path, Sequence[Row]], Path]:
    def write(root: Path, rows: Sequence[Row]) -> Path:
        with (root / "splits.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("file", "domain", "class", "group", "split"), *rows])
        return root

    return write
