from __future__ import annotations

from pathlib import Path

import pytest
import torch

from domainnorm.evaluation import Predictions
from domainnorm.report import Result


@pytest.fixture
def predictions() -> Predictions:
    """60 samples of 3 classes, 80 % right, with confidence 0.9."""
    target = torch.arange(60) % 3
    guess = torch.where(torch.arange(60) % 5 == 0, (target + 1) % 3, target)
    probabilities = torch.full((60, 3), 0.05).scatter(1, guess[:, None], 0.9)
    return Predictions(probabilities, target, torch.arange(60))


def result(method: str, value: float, seed: int = 0, **changes: object) -> Result:
    """A result on target ``b`` of the transfer a → b."""
    record: dict[str, object] = {
        "transfer": "a → b",
        "method": method,
        "domain": "b",
        "role": "target",
        "seed": seed,
        "metrics": {"balanced_accuracy": value, "ece": 1 - value},
        "supervised": method == "oracle",
        "trained_parameters": 1200,
        "trained_bytes": 4800,
        "seconds": 90.0,
    }
    return Result(**(record | changes))  # type: ignore[arg-type]


@pytest.fixture
def results() -> list[Result]:
    """Two seeds; tent beats and adabn trails source_only, the oracle saw labels."""
    values = {"oracle": 0.9, "tent": 0.7, "source_only": 0.5, "adabn": 0.4}
    targets = [
        result(method, value + 0.02 * seed, seed)
        for seed in (0, 1)
        for method, value in values.items()
    ]
    sources = [
        result(method, 0.95, seed, domain="a", role="source")
        for seed in (0, 1)
        for method in values
    ]
    return [*targets, *sources]


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n")
