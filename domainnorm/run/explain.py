"""Figures about domains: where the encoder puts them, and which layers treat them differently."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import torch

from domainnorm.backbones import DomainModel, layer_differences
from domainnorm.data.dataset import attributes_of
from domainnorm.methods.conditions import estimate_of
from domainnorm.report import save_contact_sheet, save_embeddings, save_layer_differences
from domainnorm.run.parts import Parts
from domainnorm.run.plan import Stage
from domainnorm.run.stage import Bench, set_up

_IMAGES, _PAIRS = 200, 6
_SHOWN, _NEAREST = 8, 3  # images of a domain, and domains of an image


def save_explanations(parts: Parts, stage: Stage, folder: Path, name: str) -> None:
    """Draw ``layers_<name>.png``, with an encoder ``embeddings_`` and ``nearest_<name>.png`` too.

    The first is left out where no layer has moments, scale or shift that are a domain's own.

    Args:
        parts: The run's recipe and dataset.
        stage: A finished one.
        folder: Run folder.
        name: End of the files' names.
    """
    bench = set_up(parts, stage, folder, finished=True)
    model, title = bench.method.deployed.eval(), f"{parts.recipe.name}: {stage.transfer}"
    figures = folder / "figures"
    if any(True for _ in model.domain_rows()) and model.num_domains > 1:
        _save_layers(model, figures / f"layers_{name}.png", title)
    if model.encoder is not None:
        _save_embeddings(bench, figures / f"embeddings_{name}.png", title)
        _save_nearest(bench, figures / f"nearest_{name}.png", title)


def _save_layers(model: DomainModel, path: Path, title: str) -> None:
    pairs = list(combinations(model.domain_names, 2))[:_PAIRS]
    found = {f"{one} – {other}": layer_differences(model, one, other) for one, other in pairs}
    kinds = {"moments": "divergence", "scale": "scale", "shift": "shift"}
    curves = {
        label: {pair: [getattr(layer, kind) for layer in layers] for pair, layers in found.items()}
        for kind, label in kinds.items()
    }
    if all(math.isnan(value) for of in curves.values() for line in of.values() for value in line):
        return
    paths = [layer.path for layer in next(iter(found.values()))]
    save_layer_differences(curves, paths, path, title)


@torch.inference_mode()
def _save_embeddings(bench: Bench, path: Path, title: str) -> None:
    model, data = bench.method.deployed, bench.data
    assert model.encoder is not None
    points = {}
    for domain, loader in zip(data.test_domains, data.test_dataloader(), strict=True):
        found: list[torch.Tensor] = []
        for batch in loader:
            # White, so that distances in the figure are those that decide.
            embedding = estimate_of(model, batch).embedding
            found.append(embedding @ model.encoder.gaussians.whitening.T)
            if sum(map(len, found)) >= _IMAGES:
                break
        points[domain] = torch.cat(found)[:_IMAGES].numpy()
    save_embeddings(points, path, title)


@torch.inference_mode()
def _save_nearest(bench: Bench, path: Path, title: str) -> None:
    """Some test images of each domain, with the domains that the encoder takes them for."""
    model, data = bench.method.deployed, bench.data
    pipeline, records = data.evaluation_pipeline, data.dataset.records
    images, captions = {}, {}
    for domain in data.test_domains:
        own = [n for n, r in enumerate(records) if r.domain == domain and r.split == "test"]
        chosen = own[:: max(1, len(own) // _SHOWN)][:_SHOWN]
        pixels = [data.dataset.image(index) for index in chosen]
        if not pixels:
            continue
        estimate = estimate_of(
            model,
            {
                "image": torch.stack([pipeline(one, 0) for one in pixels]),
                "attributes": attributes_of([records[index] for index in chosen], data.attributes),
            },
        )
        images[domain] = [pipeline.preprocessing.fitted(one) for one in pixels]
        captions[domain] = [
            _caption(model, weights, bool(known))
            for weights, known in zip(estimate.weights, estimate.is_known, strict=True)
        ]
    save_contact_sheet(images, path, f"{title}: nearest domains", captions)


def _caption(model: DomainModel, weights: torch.Tensor, known: bool) -> str:
    best = weights.topk(min(_NEAREST, len(weights)))
    lines = [
        f"{model.domain_names[int(row)]} {float(weight):.2f}"
        for weight, row in zip(best.values, best.indices, strict=True)
        if weight > 0
    ]
    lines += [""] * (min(_NEAREST, len(weights)) - len(lines))
    return "\n".join([*lines, "" if known else "unlike all"])
