"""Hashes of what every dataset reads of its sample, so that no change of a layout goes unseen.

``python -m tests.data.datasets.records`` states them anew in ``records.json``.
"""

import hashlib
import json
import tempfile
from pathlib import Path

from domainnorm.data.dataset import DomainDataset
from domainnorm.registry import DATASETS

FILE = Path(__file__).with_suffix(".json")


def digest(dataset: DomainDataset) -> str:
    """SHA-256 of the records in their order, by which batches go, and of the names there are."""
    records = [
        [r.file, r.domain, r.target, r.mask or "", list(r.labels or ()), r.group, r.split]
        for r in dataset.records
    ]
    known = [[r.file, sorted(r.metadata.items())] for r in dataset.records]
    text = json.dumps([records, known, dataset.domain_names, dataset.class_names])
    return hashlib.sha256(text.encode()).hexdigest()


def _stated() -> dict[str, str]:
    found = {}
    for name in DATASETS.names():
        if "root" in DATASETS.entry(name).parameters:
            with tempfile.TemporaryDirectory() as folder:
                DATASETS.load(name).write_sample(Path(folder), seed=0)
                found[name] = digest(DATASETS.load(name)(root=folder))
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(_stated(), indent=2) + "\n")
