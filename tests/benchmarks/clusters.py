"""Domains that nobody wrote down, found and compared: ``python -m tests.benchmarks.clusters``.

At most 200 images of each domain of a dataset, all splits together, in a heap without labels. *K
found* is the number of domains found; the adjusted Rand index and the purity (share of images whose
found domain holds most of theirs) compare them with the true ones, once for that number and once
with the true number given. *Alone*: share of the true domains that are one domain by themselves.
The seed draws the images and halves them. ``DOMAINNORM_DATA`` names the folder of images. Prints
Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor

from domainnorm.data import DomainDataset
from domainnorm.data.datasets import Folder, FolderMasks
from domainnorm.data.inspection.discovery import style_of
from domainnorm.encoders import find_domains
from domainnorm.evaluation import seed_spread
from tests.benchmarks.table import render
from tests.benchmarks.timer import prepare

SEEDS, NUMBER, SIZE = (0, 1, 2), 200, 96
ROOTS = ("wbc/cls", "wbc/seg", "camvid", "digits", "pacs", "vessels")
HEAD = (
    "images, true domains",
    "K found",
    "ARI",
    "purity",
    "ARI, K given",
    "purity, K given",
    "one alone",
)


def opened(root: str) -> DomainDataset:
    if root in ("wbc/cls", "digits", "pacs"):
        return Folder(root=root)
    return FolderMasks(root=root, groups="sequences" if root == "camvid" else "whole")


def heap(dataset: DomainDataset, seed: int) -> tuple[Tensor, Tensor]:
    """Style features (N, F) and true domains (N,) of drawn images."""
    styles, truth = [], []
    for label, name in enumerate(dataset.domain_names):
        own = [place for place, record in enumerate(dataset.records) if record.domain == name]
        for place in np.random.default_rng(seed).permutation(own)[:NUMBER].tolist():
            styles.append(style_of(dataset.image(place), SIZE))
            truth.append(label)
    return torch.stack(styles), torch.tensor(truth)


def compared(truth: Tensor, found: Tensor) -> tuple[float, float]:
    """Adjusted Rand index and purity."""
    counts = contingency_matrix(truth.numpy(), found.numpy())
    purity = float(counts.max(0).sum() / counts.sum())
    return float(adjusted_rand_score(truth.numpy(), found.numpy())), purity


def measure(dataset: DomainDataset, seed: int) -> tuple[float, ...]:
    features, truth = heap(dataset, seed)
    labels = truth.unique().tolist()
    auto = find_domains(features, seed=seed)
    given = find_domains(features, len(labels), seed=seed)
    alone = [find_domains(features[truth == k], seed=seed).num_domains == 1 for k in labels]
    return (
        auto.num_domains,
        *compared(truth, auto.domain),
        *compared(truth, given.domain),
        sum(alone) / len(alone),
    )


def row_of(root: str) -> tuple[str, ...]:
    dataset = opened(root)
    runs = [measure(dataset, seed) for seed in SEEDS]
    found = ", ".join(f"{run[0]:.0f}" for run in runs)
    numbers = [spread(column) for column in list(zip(*runs, strict=True))[1:]]
    return (f"{root}, {len(dataset.domain_names)}", found, *numbers)


def spread(values: Sequence[float]) -> str:
    one = seed_spread(list(values))
    return f"{one.mean:.2f} ± {one.std:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.clusters", description=__doc__
    )
    parser.add_argument("roots", nargs="*", default=ROOTS, help="data sets (default: all)")
    arguments = parser.parse_args()
    prepare()
    print(render(HEAD, [row_of(root) for root in arguments.roots], markdown=True))


if __name__ == "__main__":
    main()
