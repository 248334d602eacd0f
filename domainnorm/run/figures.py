"""Figures of a run: images, results, masks before and after, and what tells domains apart."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domainnorm import report
from domainnorm.backbones import DomainModel, layer_differences
from domainnorm.data.dataset import attributes_of
from domainnorm.data.masks import VOID
from domainnorm.data.view import join
from domainnorm.evaluation import (
    Evaluated,
    Predictions,
    has_clean,
    image_measures,
    load_evaluated,
)
from domainnorm.run.parts import Parts
from domainnorm.run.plan import SOURCE_ONLY, Stage, plan_stages
from domainnorm.run.run_folder import WEIGHTS
from domainnorm.run.stage import Bench, set_up
from domainnorm.run.training import LOG
from domainnorm.tasks.translator import image_pixels, in_styles, pixels_of

_IMAGES = 8  # of a domain in a sheet
_MASKS = 3  # of a domain among the overlays
_POINTS, _PAIRS = 200, 6  # of a domain among the embeddings; pairs of domains that are compared
_TRANSLATED = 4  # images of a domain, or restored ones
_GENERATED = 3  # images of a class and domain
_NEAREST = 3  # domains of an image
_DOUBTFUL = 10  # images of a target


def save_run_figures(parts: Parts, results: list[report.Result], folder: Path) -> None:
    """Draw images of each domain, results, curves, confusions, masks, layers and embeddings.

    All but the results are those of the first seed.
    """
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    save_domains(parts, figures / "domains.png")
    measured = [result for result in results if result.is_scored]
    if any(result.role == "target" for result in measured):
        report.save_results_bars(results, parts.metric, figures / f"{parts.metric}.png")
    for stage in plan_stages(parts.recipe):
        place = folder / stage.key
        name = stage.key.removeprefix("stages/").replace("/", "_")
        if stage.seed != parts.recipe.seeds[0]:
            continue
        if (place / LOG).exists():
            drawn = parts.metric, parts.recipe.evaluation.selection
            report.save_curves(place / LOG, figures / f"curves_{name}.png", drawn)
        if stage.label == parts.recipe.method.label:
            _save_predictions(parts, stage, folder, name)
            _save_explanations(parts, stage, folder, name)


def save_domains(parts: Parts, path: Path) -> None:
    """Draw a few training images of each domain of the run."""
    rows = {}
    for domain in parts.recipe.domains:
        found = _some(parts.dataset.positions([domain], "train"), _IMAGES)
        rows[domain] = [parts.dataset.image(index) for index in found]
    report.save_contact_sheet(rows, path, parts.recipe.name)


def _save_predictions(parts: Parts, stage: Stage, folder: Path, name: str) -> None:
    """Draw what the recipe's method says: confusions of classes, and masks over images."""
    figures, task = folder / "figures", parts.task().labels
    if task == "translation":
        _save_translations(parts, stage, folder, figures / f"translations_{name}.png")
    if task == "generation":
        _save_generated(parts, stage, folder, figures / f"generated_{name}.png")
    if task == "restoration":
        _save_restored(parts, stage, folder, figures / f"restored_{name}.png")
    if task in ("classification", "segmentation"):  # findings do not exclude each other
        classes = parts.dataset.class_names
        if predictions := _predictions(stage, folder / stage.key):
            report.save_confusions(predictions, classes, figures / f"confusion_{name}.png")
    if task == "classification":
        _save_doubtful(parts, stage, folder, figures / f"doubtful_{name}.png")
    if task == "segmentation":
        own = [
            other
            for other in plan_stages(parts.recipe)
            if (other.roles, other.seed) == (stage.roles, stage.seed)
        ]
        _save_overlays(parts, own, folder, figures / f"overlays_{name}.png")


@torch.inference_mode()
def _save_translations(parts: Parts, stage: Stage, folder: Path, path: Path) -> None:
    """Draw a few test images of each domain, each in the style of every domain."""
    bench = set_up(parts, stage, folder, finished=True)
    model, data = bench.method.deployed.eval(), bench.data
    images, captions = {}, {}
    for domain in stage.roles.all:
        chosen = _some(data.dataset.positions([domain], "test"), _TRANSLATED)
        for number, index in enumerate(chosen, 1):
            image = data.evaluation_pipeline(data.dataset.image(index), 0)[None]
            labels = torch.arange(model.num_domains)[:, None]
            made = [in_styles(model, image, label) for label in labels]
            images[f"{domain} {number}"] = [pixels_of(model, one)[0] for one in (image, *made)]
            captions[f"{domain} {number}"] = ["as it is", *model.domain_names]
    report.save_contact_sheet(images, path, f"{parts.recipe.name}: {stage.transfer}", captions)


@torch.inference_mode()
def _save_generated(parts: Parts, stage: Stage, folder: Path, path: Path) -> None:
    """Draw a test image of each class and domain, and some that were made."""
    bench = set_up(parts, stage, folder, finished=True)
    model, data = bench.method.deployed.eval(), bench.data
    task: Any = bench.method.task
    names = task.class_names
    images: dict[str, list[Any]] = {name: [] for name in names}
    captions: dict[str, list[str]] = {name: [] for name in names}
    for row, domain in enumerate(stage.roles.all):
        view: Any = data.evaluation_dataloader(domain).dataset
        shown = [data.dataset.records[position].target for position in view.positions]
        for label, name in enumerate(names):
            has_class = label in shown
            batch = join([view[shown.index(label) if has_class else 0]] * _GENERATED)
            made = task.made(
                model,
                torch.full((_GENERATED,), label),
                range(_GENERATED),
                shape=batch["image"].shape[1:],
                domain=torch.full((_GENERATED,), row),
                embedding=model.embedding_of(batch),
            )
            if has_class:
                images[name].append(pixels_of(model, batch["image"])[0])
                captions[name].append(f"{domain}, real")
            images[name] += list(image_pixels(made))
            captions[name] += [domain] * _GENERATED
    report.save_contact_sheet(images, path, f"{parts.recipe.name}: {stage.transfer}", captions)


@torch.inference_mode()
def _save_restored(parts: Parts, stage: Stage, folder: Path, path: Path) -> None:
    """Draw a few test images of each domain: what came, what was made of it, the clean one."""
    bench = set_up(parts, stage, folder, finished=True)
    model, data, images, captions = bench.method.deployed.eval(), bench.data, {}, {}
    for domain in stage.roles.all:
        view: Any = data.evaluation_dataloader(domain).dataset
        for count, number in enumerate(_some(list(range(len(view))), _TRANSLATED), 1):
            batch = join([view[number]])
            embedding = model.embedding_of(batch)
            shown = bench.method.task.predict(
                model, batch["image"], batch["domain"], embedding=embedding
            )[0]  # (2, C, H, W)
            clean = batch["target"][has_clean(batch["target"])]  # none of an input alone
            told = ["input", "restored"]
            if len(clean):
                psnr = image_measures(shown, clean.expand_as(shown))[:, 0].tolist()
                told = [f"input, {psnr[1]:.1f} dB", f"restored, {psnr[0]:.1f} dB", "as it was"]
            images[f"{domain} {count}"] = list(image_pixels(torch.cat([shown.flip(0), clean])))
            captions[f"{domain} {count}"] = told
    report.save_contact_sheet(images, path, f"{parts.recipe.name}: {stage.transfer}", captions)


def _save_doubtful(parts: Parts, stage: Stage, folder: Path, path: Path) -> None:
    """Draw the test images of each target that the model is least sure of."""
    dataset, images, captions = parts.dataset, {}, {}
    for domain in stage.roles.target:
        one = load_evaluated(folder / stage.key / f"predictions-{domain}.safetensors")
        if not isinstance(one, Predictions) or not len(one):
            continue
        confidence, predicted = one.probabilities.max(1)
        chosen = confidence.argsort()[:_DOUBTFUL].tolist()
        positions = [int(one.index[place]) for place in chosen]
        images[domain] = [dataset.image(position) for position in positions]
        names = [*dataset.class_names, "no label"]  # -1 is the last
        captions[domain] = [
            f"{names[int(predicted[place])]} {float(confidence[place]):.2f}\n"
            f"({names[int(one.target[place])]})"
            for place in chosen
        ]
    if images:
        title = f"{parts.recipe.name}: least sure, with what is predicted (and true)"
        report.save_contact_sheet(images, path, title, captions)


def _predictions(stage: Stage, place: Path) -> dict[str, Evaluated]:
    """What the model says of the domains that have labels to compare with."""
    return {
        domain: one
        for domain in stage.roles.all
        if (one := load_evaluated(place / f"predictions-{domain}.safetensors")).is_labelled
    }


def _save_overlays(parts: Parts, stages: list[Stage], folder: Path, path: Path) -> None:
    """Draw some test images of each domain with their true masks, and those of before and after."""
    shown = dict.fromkeys((SOURCE_ONLY, parts.recipe.method.label))
    finished = {
        stage.label: set_up(parts, stage, folder, finished=True)
        for stage in stages
        if stage.label in shown and (folder / stage.key / WEIGHTS).exists()
    }
    benches = {name: finished[name] for name in shown if name in finished}
    if not benches:
        return
    domains = stages[0].roles.all
    rows = [_overlay(benches, index) for domain in domains for index in _with_masks(parts, domain)]
    dataset, title = parts.dataset, f"{parts.recipe.name}: {stages[0].transfer}"
    report.save_overlays(rows, path, dataset.class_names, dataset.class_colours, title)


def _with_masks(parts: Parts, domain: str) -> list[int]:
    """Some test images of a domain; with a mask where there are such."""
    every = parts.dataset.positions([domain], "test")
    found = [index for index in every if parts.dataset.records[index].mask is not None]
    return _some(found or every, _MASKS)


def _some(indices: list[int], count: int) -> list[int]:
    """``count`` of the indices, evenly over their list."""
    return indices[:: max(1, len(indices) // count)][:count]


def _overlay(benches: dict[str, Bench], index: int) -> report.Overlay:
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
            embedding = model.embedding_of(given)
            logits = bench.method.task.predict(model, image[None], label, embedding=embedding)
        predictions[name] = logits[0].argmax(0).numpy()
    fitted = preprocessing.fitted
    return report.Overlay(fitted(pixels), fitted(truth, is_mask=True), predictions, domain)


def _save_explanations(parts: Parts, stage: Stage, folder: Path, name: str) -> None:
    """Draw ``layers_<name>.png``, with an encoder ``embeddings_`` and ``nearest_<name>.png`` too.

    The first is left out where no layer has moments, scale or shift that are a domain's own, or
    all have equal ones, as a source model that was kept has.
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
    kinds = {"moments": "moments (divergence)", "scale": "scale", "shift": "shift"}
    curves = {
        label: {pair: [getattr(layer, kind) for layer in layers] for pair, layers in found.items()}
        for kind, label in kinds.items()
    }
    different = {
        label: of
        for label, of in curves.items()
        if any(value and not math.isnan(value) for line in of.values() for value in line)
    }
    if not different:
        return
    paths = [layer.path for layer in next(iter(found.values()))]
    report.save_layer_differences(different, paths, path, title)


@torch.inference_mode()
def _save_embeddings(bench: Bench, path: Path, title: str) -> None:
    model, data = bench.method.deployed, bench.data
    assert model.encoder is not None
    points = {}
    for domain in data.test_domains:
        found: list[torch.Tensor] = []
        for batch in data.evaluation_dataloader(domain):
            # White, so that distances in the figure are those that decide.
            embedding = model.estimate_of(batch).embedding
            found.append(embedding @ model.encoder.gaussians.whitening.T)
            if sum(map(len, found)) >= _POINTS:
                break
        points[domain] = torch.cat(found)[:_POINTS].numpy()
    report.save_embeddings(points, path, title)


@torch.inference_mode()
def _save_nearest(bench: Bench, path: Path, title: str) -> None:
    """Some test images of each domain, with the domains that the encoder takes them for."""
    model, data = bench.method.deployed, bench.data
    pipeline, records = data.evaluation_pipeline, data.dataset.records
    images, captions = {}, {}
    for domain in data.test_domains:
        chosen = _some(data.dataset.positions([domain], "test"), _IMAGES)
        pixels = [data.dataset.image(index) for index in chosen]
        if not pixels:
            continue
        estimate = model.estimate_of(
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
    report.save_contact_sheet(images, path, f"{title}: nearest domains", captions)


def _caption(model: DomainModel, weights: torch.Tensor, known: bool) -> str:
    best = weights.topk(min(_NEAREST, len(weights)))
    lines = [
        f"{model.domain_names[int(row)]} {float(weight):.2f}"
        for weight, row in zip(best.values, best.indices, strict=True)
        if weight > 0
    ]
    lines += [""] * (min(_NEAREST, len(weights)) - len(lines))
    return "\n".join([*lines, "" if known else "unlike all"])
