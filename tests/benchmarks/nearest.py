"""How often ``nearest`` finds the domain of an image: ``python -m tests.benchmarks.nearest``.

Nothing is trained: the moments of each domain at the first norm of a pretrained network are those
of images of its training split, and images of its test split are assigned to the nearest one.
``DOMAINNORM_DATA`` and ``DOMAINNORM_WEIGHTS`` name the folders of images and of weights. Prints
Markdown.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel, MomentEstimator, create_model
from domainnorm.data.datasets import Folder
from domainnorm.evaluation import seed_spread
from domainnorm.norms.kernels.sample_moments import Moments
from domainnorm.slot import divergence
from tests.benchmarks.images import draw, preprocessing_of
from tests.benchmarks.table import render
from tests.benchmarks.timer import prepare

BACKBONE, SEEDS, NUMBER = "tf_efficientnet_lite0", (0, 1, 2), 80
SIZES = {"wbc/cls": 96, "digits": 32, "pacs": 96}


def wasserstein(own: Moments, running: Moments) -> Tensor:
    """Squared 2-Wasserstein distance of diagonal Gaussians, samples × domains."""
    means = own.mean[:, None] - running.mean
    return (means.square() + (own.var[:, None].sqrt() - running.var.sqrt()).square()).sum(2)


@torch.no_grad()
def found(dataset: Folder, size: int, seed: int) -> dict[str, tuple[float, float]]:
    """Share of each domain's images that are assigned to it, by either distance."""
    domains = dataset.domain_names
    model = create_model(BACKBONE, 0, "dsbn", domains, pretrained=True).eval()
    like = preprocessing_of(model, size)
    estimator = MomentEstimator(model)
    for domain in domains:
        drawn = draw(dataset, domain, "train", number=NUMBER, seed=seed, like=like)
        with estimator.observing():
            model(drawn.image, domain)
    estimator.write()
    shares = {}
    for row, domain in enumerate(domains):
        drawn = draw(dataset, domain, "test", number=NUMBER, seed=seed, like=like)
        nearest = model.nearest_domains(drawn.image)
        other = by_wasserstein(model, drawn.image)
        shares[domain] = tuple(float((labels == row).float().mean()) for labels in (nearest, other))
    return shares


def by_wasserstein(model: DomainModel, image: Tensor) -> Tensor:
    """The nearest domains by the other distance, at the same norm."""
    norm = next(model.norms())
    own = Moments(*model.record_moments(image, 0)[norm.path])
    running = Moments(norm.statistics.running_mean, norm.statistics.running_var)
    kept = divergence(own, running, norm.statistics.eps).argmin(1)
    assert torch.equal(kept, model.nearest_domains(image)), "compares another norm's moments"
    return wasserstein(own, running).argmin(1)


def spread(values: list[float]) -> str:
    one = seed_spread(values)
    return f"{one.mean:.2f} ± {one.std:.2f}"


def rows_of(root: str, size: int) -> list[list[str]]:
    dataset = Folder(root=root)
    runs = [found(dataset, size, seed) for seed in SEEDS]
    domains = dataset.domain_names
    means = [
        spread([sum(run[domain][way] for domain in domains) / len(domains) for run in runs])
        for way in (0, 1)
    ]
    rows = [[f"{root}, {size} px, {len(domains)} domains", *means]]
    for domain in domains:
        rows.append(
            [f"– {domain}", *(spread([run[domain][way] for run in runs]) for way in (0, 1))]
        )
    return rows


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m tests.benchmarks.nearest", description=__doc__
    ).parse_args()
    prepare()
    lines = [row for root, size in SIZES.items() for row in rows_of(root, size)]
    print(render(["domain found", "`nearest`", "by Wasserstein distance"], lines, markdown=True))


if __name__ == "__main__":
    main()
