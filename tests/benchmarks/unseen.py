"""A domain left out, under each policy for unseen domains, beside models without domains.

``python -m tests.benchmarks.unseen LABEL=RUN ...`` prints Markdown. RUN is a finished run with
stages of ``source_only`` whose targets are left out, as ``pacs/leave_one_out`` has them. The
target's rows are taken out of the model, which then tests its images without a domain. Models
without a domain encoder get a style encoder, fitted to the images of the sources. A dash: the model
has nothing that the policy could use.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from domainnorm.backbones import remove_domain
from domainnorm.errors import ConditionError
from domainnorm.run.stage import Bench
from tests.benchmarks.conditions import benches, cell
from tests.benchmarks.table import render
from tests.benchmarks.timer import prepare

# Or, with a comma, the policy for all images and for those of them that are near no known domain.
POLICIES = ("mean", "nearest", "batch", "estimate", "mixture", "mixture, mean", "mixture, batch")

Values = dict[str, dict[str, list[float]]]  # target -> policy -> one per seed


def has_rows(bench: Bench) -> bool:
    """Whether domains have anything of their own in this model."""
    return any(bench.method.model.domain_rows())


@torch.inference_mode()
def measure(bench: Bench, target: str, policy: str) -> float:
    """The task's metric on the target's test images, none of which has a domain."""
    model, task = bench.method.model, bench.method.task
    model.unseen, _, far = policy.partition(", ")  # type: ignore[assignment]
    model.far = far or None  # type: ignore[assignment]
    loader = bench.data.test_dataloader()[bench.data.test_domains.index(target)]
    order = torch.Generator().manual_seed(bench.stage.seed)
    shuffled: DataLoader[dict[str, torch.Tensor]] = DataLoader(
        loader.dataset,
        loader.batch_size,
        shuffle=True,  # files come class after class, which "batch" would take for a style
        generator=order,
        collate_fn=loader.collate_fn,
    )
    store = task.store()
    for batch in shuffled:
        image = batch["image"]
        hidden = torch.full((len(image),), -1)
        store.update(task.predict(model, image, hidden), batch["target"], batch["index"])
    return float(store.compute().metrics(**task.metric_options())[task.metric])


def measured(run: Path) -> Values:
    """Every stage of the run under every policy that its model can carry out."""
    found: Values = defaultdict(lambda: defaultdict(list))
    for bench in benches(run, "source_only", ""):
        (target,) = bench.stage.roles.target
        model = bench.method.model
        several = has_rows(bench)
        remove_domain(model, target)
        for policy in POLICIES if several else POLICIES[:1]:
            try:
                found[target][policy].append(measure(bench, target, policy))
            except ConditionError as error:
                if policy.partition(", ")[0] not in str(error):
                    raise
    return found


def rows_of(label: str, values: Values) -> list[tuple[str, ...]]:
    """One row per target, and their mean."""
    rows = [
        (f"`{label}`", target, *(cell(ways[way]) if ways[way] else "–" for way in POLICIES))
        for target, ways in values.items()
    ]
    means = []
    for way in POLICIES:
        seeds = list(zip(*(ways[way] for ways in values.values()), strict=True))
        means.append(cell([statistics.mean(seed) for seed in seeds]) if seeds else "–")
    return [*rows, (f"`{label}`", "mean", *means)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.unseen", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN")
    prepare()
    rows: list[tuple[str, ...]] = []
    for item in parser.parse_args().runs:
        label, _, run = item.partition("=")
        values = measured(Path(run))
        if not values:
            raise SystemExit(f"{run}: no finished stage of 'source_only'")
        rows += rows_of(label, values)
    print(render(("model", "left out", *POLICIES), rows, markdown=True))


if __name__ == "__main__":
    main()
