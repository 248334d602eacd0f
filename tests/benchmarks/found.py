"""What a model gains from domains that were found: runs compared on the domains of the folders.

``python -m tests.benchmarks.found RUN ...`` prints, for each run, the metric of its task on the
test images below each first folder of the paths, whatever the domains of the run are; mean ± std
over seeds. ``python -m tests.benchmarks.found --table FOUND OUT {folders,one}`` writes a manifest
with the images and splits of another one, and first folders, or ``all``, as domains.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch

from domainnorm.data import DomainDataset
from domainnorm.evaluation import Predictions, load_evaluated
from domainnorm.registry import TASKS
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.run_folder import read_folder
from tests.benchmarks.conditions import cell
from tests.benchmarks.table import render


def write_table(found: Path, out: Path, domains: str) -> None:
    with found.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["domain"] = "all" if domains == "one" else row["path"].partition("/")[0]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def measure(stage: Path, dataset: DomainDataset, metric: str) -> dict[str, float]:
    """First folder -> metric on its test images."""
    parts = [load_evaluated(file) for file in sorted(stage.glob("predictions-*.safetensors"))]
    assert all(isinstance(part, Predictions) for part in parts)
    names = ("probabilities", "target", "index")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    positions: Mapping[str, list[int]] = defaultdict(list)
    for position, index in enumerate(joined["index"].tolist()):
        positions[dataset.records[index].file.partition("/")[0]].append(position)
    return {
        folder: Predictions(**{name: joined[name][own] for name in names}).metrics()[metric]
        for folder, own in sorted(positions.items())
    }


def row_of(run: Path) -> dict[str, list[float]]:
    recipe, _ = read_folder(run)
    metric = str(TASKS.entry(recipe.task.name).constants["metric"])
    dataset = Parts(recipe).dataset
    values: dict[str, list[float]] = defaultdict(list)
    for stage in plan_stages(recipe):
        found = measure(run / stage.key, dataset, metric)
        for folder, value in found.items():
            values[folder].append(value)
        values["mean"].append(sum(found.values()) / len(found))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.found", description=__doc__)
    parser.add_argument("words", nargs="+", metavar="RUN")
    parser.add_argument("--table", action="store_true", help="write a table instead")
    arguments = parser.parse_args()
    if arguments.table:
        found, out, domains = arguments.words
        write_table(Path(found), Path(out), domains)
        return
    rows = {run: row_of(Path(run)) for run in arguments.words}
    head = ["run", *next(iter(rows.values()))]
    lines = [[run, *(cell(values[name]) for name in head[1:])] for run, values in rows.items()]
    print(render(head, lines, markdown=True))


if __name__ == "__main__":
    main()
