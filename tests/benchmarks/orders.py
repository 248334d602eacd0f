"""What `online` makes of streams whose order changes: finished source models, their test images.

``python -m tests.benchmarks.orders RUN ... [--way WAY ...] [--batch-size N]`` prints Markdown. A
RUN is what ``domainnorm run RECIPE compare=[source_only]`` leaves, a WAY a method of streams with
its options, ``online,ordered=false``. Streams: all images in random order, one class after the
other, in runs of 8 of one class, and half of them one class after the other, before or after the
other half in random order. Values are balanced accuracy over the stream, and over its second half.
The seed of the stage draws. Target labels are used for orders and the table alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from domainnorm.data.view import DomainView
from domainnorm.errors import DomainNormError
from domainnorm.run.stage import Bench
from tests.benchmarks.conditions import cell
from tests.benchmarks.streams import benches, following
from tests.benchmarks.table import render
from tests.benchmarks.timer import prepare


def images_of(bench: Bench) -> tuple[Tensor, Tensor]:
    """Test images of the targets, and their classes."""
    records, names = bench.parts.dataset.records, bench.data.domain_names
    positions = [
        n
        for n, one in enumerate(records)
        if one.domain in bench.stage.roles.target and one.split == "test"
    ]
    pipelines = dict.fromkeys(names, bench.data.evaluation_pipeline)
    view = DomainView(
        bench.parts.dataset, positions, domain_names=names, labelled=names, pipelines=pipelines
    )
    batch = next(iter(DataLoader(view, batch_size=len(positions))))
    return batch["image"], batch["target"]


def orders_of(target: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Name of an order -> positions of images (N,)."""
    drawn = torch.randperm(len(target), generator=generator)
    half, rest = drawn.tensor_split(2)
    ordered = half[target[half].argsort(stable=True)]
    by_class = drawn[target[drawn].argsort(stable=True)]
    runs = by_class.split(8)
    mixed = torch.randperm(len(runs), generator=generator).tolist()
    return {
        "shuffled": drawn,
        "by class": by_class,
        "runs of 8": torch.cat([runs[n] for n in mixed]),
        "by class, then shuffled": torch.cat([ordered, rest]),
        "shuffled, then by class": torch.cat([rest, ordered]),
    }


def balanced_accuracy(predicted: Tensor, target: Tensor) -> float:
    right = (predicted == target).double()
    return float(torch.stack([right[target == k].mean() for k in target.unique()]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.orders", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--way", action="append", metavar="WAY")
    arguments = parser.parse_args()
    prepare()
    ways = arguments.way or ["online", "online,ordered=false", "online,ordered=true"]
    found: dict[tuple[str, str], list[list[float]]] = {}
    for bench in (bench for run in arguments.runs for bench in benches(run)):
        images, target = images_of(bench)
        shift = " → ".join(map(" + ".join, (bench.stage.roles.source, bench.stage.roles.target)))
        generator = torch.Generator().manual_seed(bench.stage.seed)
        for order, positions in orders_of(target, generator).items():
            second = slice(len(positions) // 2, None)
            values = found.setdefault((shift, order), [])
            row: list[float] = []
            for way in ways:
                stream = following(bench, way, False)
                parts = positions.split(arguments.batch_size)
                predicted = torch.cat([stream(images[part]).argmax(1) for part in parts])
                of_stream = predicted, target[positions]
                row.append(balanced_accuracy(*of_stream))
                row.append(balanced_accuracy(*(one[second] for one in of_stream)))
            values.append(row)
    if not found:
        raise DomainNormError(f"{arguments.runs}: no finished stage of 'source_only'")
    columns = [name for way in ways for name in (way, "second half")]
    rows = [
        (*key, *(cell(list(column)) for column in zip(*values, strict=True)))
        for key, values in found.items()
    ]
    print(render(("", "", *columns), rows, markdown=True))


if __name__ == "__main__":
    main()
