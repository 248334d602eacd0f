from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from domainnorm.data.datasets import Scans

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> list[dict[str, list[int]]]:
    folder = tmp_path_factory.mktemp("ranks")
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    subprocess.run([sys.executable, SCRIPT, folder], env=environment, check=True, timeout=300)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def positions(split: str) -> list[int]:
    records = Scans(per_domain=45).records
    return [i for i, r in enumerate(records) if (r.domain, r.split) == ("clean", split)]


@pytest.mark.slow
def test_ranks_together_train_on_every_image(seen):
    assert len(seen[0]["train"]) == len(seen[1]["train"]) < len(positions("train"))
    assert sorted({*seen[0]["train"], *seen[1]["train"]}) == positions("train")


@pytest.mark.slow
def test_ranks_together_test_every_image_once(seen):
    assert sorted(seen[0]["test"] + seen[1]["test"]) == positions("test")
