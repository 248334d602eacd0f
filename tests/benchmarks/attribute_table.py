"""A manifest of cells with drawn attributes: ``python -m tests.benchmarks.attribute_table TABLE``.

Images and splits are those of the recipe `medical/wbc`. Each image gets its *stain*, a noisy *hour*
(normal, spread 3, means 3 apart), the name of a *device* of its stain's own maker and a *report*
that names it; every cell is empty with a probability. A run reads the table by ``data.name=manifest
data.table=TABLE``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from domainnorm.data.datasets import Folder
from domainnorm.data.manifest import write_manifest
from domainnorm.data.table import Row
from tests.benchmarks.attributes import described, noted
from tests.benchmarks.descriptions import ATTRIBUTES

ROOT = "wbc/cls"


def rows(missing: float, seed: int) -> Iterator[Row]:
    dataset = Folder(root=ROOT)
    datasets = [noted(dataset, missing, seed)]
    datasets += [described(dataset, name, "", missing, seed) for name in ATTRIBUTES]
    for record, *noted_records in zip(
        dataset.records, *(found.records for found in datasets), strict=True
    ):
        known = {name: value for found in noted_records for name, value in found.metadata.items()}
        label = dataset.class_names[record.target]
        yield Row(record.file, record.domain, label, record.group, record.split, known)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.attribute_table", description=__doc__
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--missing", type=float, default=0.0, help="share of empty cells (0)")
    parser.add_argument("--seed", type=int, default=0, help="of values and gaps (0)")
    arguments = parser.parse_args()
    drawn = list(rows(arguments.missing, arguments.seed))
    write_manifest(arguments.table, drawn)
    seen = np.unique([row.domain for row in drawn], return_counts=True)
    counts = ", ".join(f"{name} {count}" for name, count in zip(*seen, strict=True))
    print(f"{arguments.table}: {len(drawn)} images ({counts})")


if __name__ == "__main__":
    main()
