"""Figures of a run."""

from __future__ import annotations

from pathlib import Path

from domainnorm.evaluation import Evaluated, load_evaluated
from domainnorm.report import (
    Result,
    save_confusions,
    save_contact_sheet,
    save_curves,
    save_results_bars,
)
from domainnorm.run.explain import save_explanations
from domainnorm.run.overlays import save_run_overlays
from domainnorm.run.parts import Parts
from domainnorm.run.plan import Stage, plan_stages

_IMAGES = 8


def save_run_figures(parts: Parts, results: list[Result], folder: Path) -> None:
    """Draw images of each domain, results, curves, confusions, masks, layers and embeddings.

    All but the results are those of the first seed.

    Args:
        parts: The run's recipe and dataset.
        results: Results of all stages.
        folder: Run folder.
    """
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    save_domains(parts, figures / "domains.png")
    measured = [result for result in results if result.is_scored]
    if any(result.role == "target" for result in measured):
        shown = [parts.metric, *(("accuracy",) if "accuracy" in measured[0].metrics else ())]
        for metric in shown:
            save_results_bars(results, metric, figures / f"{metric}.png")
    for stage in plan_stages(parts.recipe):
        place = folder / stage.key
        name = stage.key.removeprefix("stages/").replace("/", "_")
        if stage.seed != parts.recipe.seeds[0]:
            continue
        if (place / "log.csv").exists():
            save_curves(place / "log.csv", figures / f"curves_{name}.png")
        if stage.method.name == parts.recipe.method.name:
            _save_predictions(parts, stage, folder, name)
            save_explanations(parts, stage, folder, name)


def save_domains(parts: Parts, path: Path) -> None:
    """Draw a few training images of each domain of the run."""
    rows = {}
    for domain in parts.domains():
        found = [
            index
            for index, record in enumerate(parts.dataset.records)
            if record.domain == domain and record.split == "train"
        ]
        step = max(1, len(found) // _IMAGES)
        rows[domain] = [parts.dataset.image(index) for index in found[::step][:_IMAGES]]
    save_contact_sheet(rows, path, parts.recipe.name)


def _save_predictions(parts: Parts, stage: Stage, folder: Path, name: str) -> None:
    """Draw what the recipe's method says: confusions of classes, and masks over images."""
    figures, task = folder / "figures", parts.dataset.task
    if task != "multilabel":  # findings do not exclude each other
        classes = parts.dataset.class_names
        predictions = _predictions(stage, folder / stage.key)
        if predictions:
            save_confusions(predictions, classes, figures / f"confusion_{name}.png")
    if task == "segmentation":
        own = [
            other
            for other in plan_stages(parts.recipe)
            if (other.roles, other.seed) == (stage.roles, stage.seed)
        ]
        save_run_overlays(parts, own, folder, figures / f"overlays_{name}.png")


def _predictions(stage: Stage, place: Path) -> dict[str, Evaluated]:
    """What the model says of the domains that have labels to compare with."""
    found = {
        domain: load_evaluated(place / f"predictions-{domain}.safetensors")
        for domain in stage.roles.all
    }
    return {domain: one for domain, one in found.items() if one.is_labelled}
