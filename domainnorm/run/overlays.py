"""Masks of a few test images of a finished run, before and after adaptation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from domainnorm.data.dataset import VOID, attributes_of
from domainnorm.methods.conditions import embedding_of
from domainnorm.report import Overlay, save_overlays
from domainnorm.run.parts import Parts
from domainnorm.run.plan import SOURCE_ONLY, Stage
from domainnorm.run.stage import WEIGHTS, Bench, set_up

_IMAGES = 3  # of each domain


def save_run_overlays(parts: Parts, stages: list[Stage], folder: Path, path: Path) -> None:
    """Draw image, truth and predictions of some test images of each domain.

    Args:
        parts: The run's recipe and dataset.
        stages: Stages of one transfer and one seed; the source model and the recipe's method are
            shown.
        folder: Run folder.
        path: File to write.
    """
    shown = dict.fromkeys((SOURCE_ONLY, parts.recipe.method.name))
    finished = {
        stage.method.name: set_up(parts, stage, folder, finished=True)
        for stage in stages
        if stage.method.name in shown and (folder / stage.key / WEIGHTS).exists()
    }
    benches = {name: finished[name] for name in shown if name in finished}
    if not benches:
        return
    domains = stages[0].roles.all
    rows = [_row(benches, index) for domain in domains for index in _chosen(parts, domain)]
    dataset, title = parts.dataset, f"{parts.recipe.name}: {stages[0].transfer}"
    save_overlays(rows, path, dataset.class_names, dataset.class_colours, title)


def _chosen(parts: Parts, domain: str) -> list[int]:
    """Test images of a domain, evenly over its list; those with a mask where there are some."""
    records = parts.dataset.records
    every = [n for n, one in enumerate(records) if one.domain == domain and one.split == "test"]
    found = [n for n in every if records[n].mask is not None] or every
    return found[:: max(1, len(found) // _IMAGES)][:_IMAGES]


def _row(benches: dict[str, Bench], index: int) -> Overlay:
    """One image as the models see it, with what they say."""
    one = next(iter(benches.values()))
    dataset, preprocessing = one.data.dataset, one.data.evaluation_pipeline.preprocessing
    record, asked = dataset.records[index], one.data.attributes
    pixels = dataset.image(index)
    unknown = record.mask is None
    truth = np.full(pixels.shape[:2], VOID, np.uint8) if unknown else dataset.mask(index)
    image, _ = preprocessing.pair(pixels, None)
    domain = record.domain
    predictions = {}
    for name, bench in benches.items():
        model = bench.method.deployed.eval()
        label = torch.tensor([model.domain_names.index(domain)])
        with torch.no_grad():
            given = {"image": image[None], "attributes": attributes_of([record], asked)}
            embedding = embedding_of(model, given)
            logits = bench.method.task.predict(model, image[None], label, embedding=embedding)
        predictions[name] = logits[0].argmax(0).numpy()
    fitted = preprocessing.fitted
    return Overlay(fitted(pixels), fitted(truth, is_mask=True), predictions, domain)
