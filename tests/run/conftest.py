from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.run.tiny import figures, run


@pytest.fixture(autouse=True)
def _algorithms_as_before():
    """A trainer of a recipe switches them for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="package", autouse=True)
def _blank_figures() -> Iterator[None]:
    with figures(drawn=False):
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that was never interrupted; tests only read it."""
    with figures(drawn=True):
        return run(tmp_path_factory.mktemp("finished"))
