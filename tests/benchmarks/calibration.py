"""Accuracy right after a conversion to instance statistics, with and without calibration.

Run with ``python -m tests.benchmarks.calibration``; prints Markdown. ``DOMAINNORM_DATA`` and
``DOMAINNORM_WEIGHTS`` name the folders of images and of weights.

The network is never trained: a linear classifier is fitted to the features that the pretrained
network gives of the source's training images, and stays as it is when the norms are converted. The
seed draws the images of the classifier, of the calibration and, from larger splits, of the test.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from domainnorm.backbones import DomainModel, calibrate, create_model
from domainnorm.data.datasets import Folder
from domainnorm.evaluation import seed_spread
from tests.benchmarks.images import Drawn, draw, preprocessing_of
from tests.benchmarks.table import render
from tests.benchmarks.timer import prepare

BACKBONE, SIZE, SEEDS, BATCH = "tf_efficientnet_lite0", 96, (0, 1, 2), 64
FITTED, CALIBRATED, TESTED = 600, 128, 200  # images per domain at most
RULES = {"early": {"early": "cin", "late": None}, "everywhere": {"all": "cin"}}
TRANSFERS = {
    ("tecom_rapid", "cellavision"): "wbc/cls",
    ("cellavision", "tecom_rapid"): "wbc/cls",
    ("photo", "art_painting", "cartoon", "sketch"): "pacs",
}


class Images(NamedTuple):
    """What one seed draws of each domain; the first domain is the source."""

    fitted: Drawn
    calibrated: Mapping[str, Drawn]
    tested: Mapping[str, Drawn]


def converted(rule: object, domains: Sequence[str]) -> DomainModel:
    return create_model(BACKBONE, 0, rule, domains, pretrained=True).eval()


def drawn(root: str, domains: Sequence[str], seed: int, model: DomainModel) -> Images:
    dataset = Folder(root=root, domains=list(domains))

    def images(domain: str, split: str, number: int) -> Drawn:
        like = preprocessing_of(model, SIZE)
        return draw(dataset, domain, split, number=number, seed=seed, like=like)

    training = sum(r.domain == domains[0] and r.split == "train" for r in dataset.records)
    return Images(
        images(domains[0], "train", min(FITTED, training * 4 // 5)),
        {domain: images(domain, "train", CALIBRATED) for domain in domains},
        {domain: images(domain, "test", TESTED) for domain in domains},
    )


@torch.no_grad()
def features(model: DomainModel, image: Tensor, domain: str) -> Tensor:
    return torch.cat([model(part, domain) for part in image.split(BATCH)]).numpy()


def fit_classifier(model: DomainModel, domain: str, images: Drawn) -> Pipeline:
    linear = LogisticRegression(max_iter=2000, class_weight="balanced")
    classifier = make_pipeline(StandardScaler(), linear)
    return classifier.fit(features(model, images.image, domain), images.target.numpy())


def calibrated(rule: object, domains: Sequence[str], images: Mapping[str, Drawn]) -> DomainModel:
    """Converted, then calibrated on these images; other domains have the pair of all of them."""
    model = converted(rule, domains)
    calibrate(model, [(one.image, domain) for domain, one in images.items()])
    return model


def alone(rule: object, domains: Sequence[str], images: Mapping[str, Drawn]) -> DomainModel:
    """Each layer calibrated by itself, behind the pretrained network, not behind the others."""
    model = converted(rule, domains)
    for layer in model.conversion:
        if not layer.exact:
            only = calibrated({"all": None, layer.path: "cin"}, domains, images)
            own, fitted = (one.backbone.get_submodule(layer.path) for one in (model, only))
            own.modulation.load_state_dict(fitted.modulation.state_dict())
    return model


def variants(
    domains: Sequence[str], images: Images
) -> Iterator[tuple[str, Callable[[], DomainModel]]]:
    source = {domains[0]: images.calibrated[domains[0]]}
    yield "pretrained network", lambda: converted(None, domains)
    for where, rule in RULES.items():
        yield f"{where}: as converted", lambda rule=rule: converted(rule, domains)
        yield (
            f"{where}: calibrated, source images",
            lambda rule=rule: calibrated(rule, domains, source),
        )
        yield (
            f"{where}: calibrated, images of every domain",
            lambda rule=rule: calibrated(rule, domains, images.calibrated),
        )
    yield "early: each layer alone, source images", lambda: alone(RULES["early"], domains, source)


def measure(root: str, domains: Sequence[str], seed: int) -> dict[str, list[float]]:
    """Balanced accuracy of each variant on each domain."""
    pretrained = converted(None, domains)
    images = drawn(root, domains, seed, pretrained)
    classifier = fit_classifier(pretrained, domains[0], images.fitted)
    found = {}
    for name, make in variants(domains, images):
        model = make()
        found[name] = [
            balanced_accuracy_score(
                one.target.numpy(), classifier.predict(features(model, one.image, domain))
            )
            for domain, one in images.tested.items()
        ]
    return found


def table(root: str, domains: Sequence[str]) -> str:
    runs = [measure(root, domains, seed) for seed in SEEDS]
    rows = []
    for name in runs[0]:
        spreads = [seed_spread(values) for values in zip(*(run[name] for run in runs), strict=True)]
        rows.append([name, *(f"{one.mean:.3f} ± {one.std:.3f}" for one in spreads)])
    return render([f"{root}, norms", f"{domains[0]} (source)", *domains[1:]], rows, markdown=True)


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m tests.benchmarks.calibration", description=__doc__
    ).parse_args()
    prepare()
    for names, place in TRANSFERS.items():
        print(table(place, names), flush=True)
        print()


if __name__ == "__main__":
    main()
