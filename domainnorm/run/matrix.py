"""The matrix of domains: every domain's images under every domain's model or norms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from domainnorm import report
from domainnorm.errors import DataError
from domainnorm.evaluation import CrossDomainMatrix, Evaluated, load_evaluated
from domainnorm.methods import Roles
from domainnorm.recipe import Recipe
from domainnorm.run.machine import is_first, prepare
from domainnorm.run.parts import Parts
from domainnorm.run.plan import SOURCE_ONLY, Stage, supervised_method
from domainnorm.run.run_folder import write_page, write_results
from domainnorm.run.stage import predict, run_stage, set_up
from domainnorm.terminal import create_console

_ROW_LABELS = {"models": "model trained on", "norms": "norms of"}
KINDS = {"models": ("models",), "norms": ("norms",), "both": ("models", "norms")}


def carry_out_matrix(recipe: Recipe, folder: Path, kind: str) -> None:
    """Carry out what is not done yet of a matrix in its folder."""
    # Domains are rows here; a method or checkpoint of the recipe plays no part, nor do scores.
    evaluation = replace(recipe.evaluation, score_images=0)
    parts = Parts(replace(recipe, checkpoint=None, evaluation=evaluation))
    parts.check_images(stage for one in KINDS[kind] for stage in _stages(parts, one))
    prepare(recipe)
    console = create_console()
    for domain in _unscored(parts):
        text = f"{domain}: no test image has a label; its column stays empty"
        console.print(text, markup=False, highlight=False)
    figures = folder / "figures"
    if is_first():
        # Deferred, as in a run: what draws is read when there is something to draw.
        from domainnorm.run.figures import save_domains  # noqa: PLC0415

        figures.mkdir(exist_ok=True)
        save_domains(parts, figures / "domains.png")
    tables = []
    for one in KINDS[kind]:
        matrix = _filled(parts, folder, one, console)
        target = figures / f"matrix_{one}"
        if is_first():
            matrix.to_csv(folder / f"matrix_{one}.csv")
            matrix.to_json(folder / f"matrix_{one}.json")
            target.mkdir(exist_ok=True)
            report.save_heatmaps(matrix, target, row_label=_ROW_LABELS[one])
        summary = matrix.summary()[parts.metric]
        console.print(
            f"{one}: {parts.metric} own domain {summary.diagonal:.3f}, other domains "
            f"{summary.off_diagonal:.3f}  → {target}",
            soft_wrap=True,
        )
        shown = report.matrix_markdown(matrix, parts.metric, _ROW_LABELS[one])
        tables.append(f"**{one}** · {parts.metric}\n\n{shown}")
    if is_first():
        write_results(folder, "\n".join(tables))
        write_page(folder)


def _stages(parts: Parts, kind: str) -> list[Stage]:
    """Stages of one kind of matrix: a model for each domain, or one model for all."""
    recipe, domains = parts.recipe, parts.recipe.domains
    if kind == "norms":
        method = supervised_method(recipe, "joint")
        return [Stage(Roles(tuple(domains)), seed, method) for seed in recipe.seeds]
    method = supervised_method(recipe, SOURCE_ONLY)
    return [
        Stage(Roles((row,), tuple(name for name in domains if name != row)), seed, method)
        for seed in recipe.seeds
        for row in domains
    ]


def _filled(parts: Parts, folder: Path, kind: str, console: Console) -> CrossDomainMatrix:
    """A matrix of all stages of its kind, which are carried out."""
    evaluation, domains = parts.recipe.evaluation, parts.recipe.domains
    matrix = CrossDomainMatrix(
        domains,
        domains,
        confidence=evaluation.confidence,
        resamples=evaluation.resamples,
        options=parts.task().metric_options(evaluation.bins),
    )
    for stage in _stages(parts, kind):
        several = f"one model for {len(domains)} domains"
        name = several if kind == "norms" else f"model of {stage.roles.source[0]}"
        console.print(f"{name}  seed {stage.seed}")
        run_stage(parts, stage, folder)
        for row, column, predictions in _cells(parts, stage, folder, kind):
            if predictions.is_labelled:
                groups = parts.dataset.groups_of(predictions.index.tolist())
                matrix.add(stage.seed, row, column, predictions, groups)
    return matrix


def _cells(
    parts: Parts, stage: Stage, folder: Path, kind: str
) -> Iterator[tuple[str, str, Evaluated]]:
    """Row, column and predictions of each cell that a finished stage fills."""
    if kind == "models":
        (row,) = stage.roles.source
        for column in parts.recipe.domains:
            file = folder / stage.key / f"predictions-{column}.safetensors"
            yield row, column, load_evaluated(file)
        return
    bench = set_up(parts, stage, folder, finished=True)
    for row in parts.recipe.domains:
        for column, predictions in predict(bench, norm_domain=row).items():
            yield row, column, predictions


def _unscored(parts: Parts) -> list[str]:
    """Domains whose test images have no label; refused where these are all."""
    tested = {r.domain for r in parts.dataset.records if r.split == "test" and r.is_labelled}
    found = [name for name in parts.recipe.domains if name not in tested]
    if len(found) == len(parts.recipe.domains):
        raise DataError("matrix: no test image of any domain has a label; there is nothing to show")
    return found
