from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.run.tiny import run


@pytest.fixture(autouse=True)
def _algorithms_as_before():
    """A trainer of a recipe switches them for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that was never interrupted; tests only read it."""
    return run(tmp_path_factory.mktemp("finished"))
