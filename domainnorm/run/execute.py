"""The execution of a recipe: a run or a matrix, started or gone on with, and tested again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from safetensors import SafetensorError

from domainnorm import report
from domainnorm.data.inspection.survey import told_of
from domainnorm.errors import CheckpointError, DomainNormError, RecipeError, counted
from domainnorm.evaluation import load_evaluated
from domainnorm.loggers import check_loggers, create_loggers, recording
from domainnorm.recipe import Recipe, needs_network, remarks
from domainnorm.registry import METHODS
from domainnorm.run.machine import (
    describe_environment,
    is_first,
    of_first,
    on_all_ranks,
    prepare,
    write_cost,
)
from domainnorm.run.matrix import carry_out_matrix
from domainnorm.run.parts import Parts
from domainnorm.run.plan import Stage, plan_stages
from domainnorm.run.run_folder import (
    COST,
    ENVIRONMENT,
    RESULTS,
    STAGES,
    WEIGHTS,
    make_folder,
    read_folder,
    write_page,
    write_results,
)
from domainnorm.run.scoring import with_ensv
from domainnorm.run.stage import (
    check_same_images,
    predict,
    run_stage,
    score,
    set_up,
)
from domainnorm.run.training import TRAINING
from domainnorm.run.trial import rehearse_stages
from domainnorm.storage import locked, write_json
from domainnorm.terminal import create_console

# What a test may change of a run: how its models are tested, not which they are.
_TRAINER = ("threads", "accelerator", "devices", "num_nodes", "strategy", "precision")
_DATA = ("root", "image_size", "fit", "eval_batch_size", "num_workers")
_OF_TESTS = (
    *("evaluation", "condition", "unseen", "far"),
    *(f"data.{key}" for key in _DATA),
    *("task.flips", "task.overlap"),
    *(f"trainer.{key}" for key in _TRAINER),
)


def run_recipe(recipe: Recipe, output: Path) -> Path:
    """Carry out every stage of a checked recipe in a new run folder below ``output``.

    Returns:
        The run folder: ``recipe.yaml``, ``environment.json``, ``metrics.csv``, ``metrics.json``,
        ``results.md``, ``figures/``, ``report.html`` and ``stages/<transfer>/seed<n>/<method>/``.
    """
    check_loggers(recipe.trainer.logger, recipe.name)
    parts = Parts(recipe)  # before a folder is made: most mistakes show here
    stages = plan_stages(recipe)
    parts.check_images(stages)
    if needs_network(recipe):
        rehearse_stages(parts, stages)
    with on_all_ranks(recipe):
        folder = _new_folder(recipe, output, "run", {"left_out": told_of(parts.dataset)})
        with _alone(folder), _kept_if_begun(folder):
            _carry_out(parts, folder)
    return folder


def run_matrix(recipe: Recipe, output: Path, kind: str) -> Path:
    """Train the models of a matrix and test each on every domain, in a new run folder.

    Args:
        recipe: A checked recipe; the domains of all its transfers are rows and columns.
        output: Root of all run folders.
        kind: ``models``: one model fine-tuned per domain. ``norms``: one model for all domains,
            every domain's images under every domain's norms. ``both``.

    Returns:
        The run folder, with ``matrix_<kind>.csv``, ``.json``, heatmaps in ``figures/``,
        ``results.md`` and ``report.html``.

    Raises:
        RecipeError: Fewer than two domains, epochs chosen by targets, or a task without labels.
    """
    number = len(recipe.domains)
    if number < 2:
        text = f"data.source, data.target: {number} domain, a matrix needs two or more"
        raise RecipeError([text], recipe.name)
    if (asked := recipe.evaluation.selection) not in ("last", "validation"):
        text = f"evaluation.selection: '{asked}' looks at targets, and here each domain is one in"
        raise RecipeError([f"{text} turn; take 'last' or 'validation'"], recipe.name)
    if (task := recipe.task.name) == "translation":
        text = f"task: a matrix trains on labels, and '{task}' has none; `domainnorm run` tests"
        raise RecipeError([f"{text} every pair of domains"], recipe.name)
    if task == "generation":
        text = f"task: a matrix compares predictions, and '{task}' has none; take `domainnorm run`"
        raise RecipeError([text], recipe.name)
    check_loggers(recipe.trainer.logger, recipe.name)
    with on_all_ranks(recipe):
        folder = _new_folder(recipe, output, kind)
        with _alone(folder), _kept_if_begun(folder):
            carry_out_matrix(recipe, folder, kind)
    return folder


@contextmanager
def _kept_if_begun(folder: Path) -> Iterator[None]:
    """A new folder is gone again where something is refused before anything was learned.

    Not where a disk is at fault: what was refused then goes on with ``--resume``.
    """
    try:
        yield
    except DomainNormError as error:
        begun = any(any(folder.rglob(name)) for name in (RESULTS, TRAINING))
        cause = error.__cause__
        # Errors of the network are OSErrors, too, but have no number.
        unwritten = isinstance(cause, SafetensorError) or getattr(cause, "errno", None) is not None
        if is_first() and not begun and not unwritten:
            shutil.rmtree(folder)
            with suppress(OSError):  # others are in it
                folder.parent.rmdir()
        raise


def _new_folder(
    recipe: Recipe, output: Path, purpose: str, facts: Mapping[str, Any] | None = None
) -> Path:
    made = {**describe_environment(), **(facts or {})}
    return of_first(lambda: make_folder(recipe, output, purpose, made))


def _alone(folder: Path) -> AbstractContextManager[None]:
    """`locked`, by the first process of a run for all of them."""
    return locked(folder) if is_first() else nullcontext()


def resume_run(folder: Path) -> Path:
    """Finished stages are read, a stage in the middle goes on from its last epoch.

    The result is the same, weights included, as that of a run that was never interrupted.

    Raises:
        CheckpointError: Not a run folder, a truncated checkpoint, or another process is at it.
        RecipeError: The recipe in it was edited into something wrong.
    """
    recipe, purpose = read_folder(folder)
    if purpose in ("run", STAGES):
        parts = Parts(recipe)
        with on_all_ranks(recipe), _alone(folder):
            if is_first() and not (folder / ENVIRONMENT).exists():  # of a comparison
                write_json(describe_environment(), folder / ENVIRONMENT)
            _carry_out(parts, folder, page=purpose == "run")
    else:
        with on_all_ranks(recipe), _alone(folder):
            carry_out_matrix(recipe, folder, purpose)
    return folder


def test_run(folder: Path, overrides: Sequence[str] = ()) -> None:  # noqa: PT028 - no pytest
    """Test the stored weights of every finished stage again and print the table.

    Args:
        folder: A run has left it; nothing in it changes.
        overrides: ``key=value`` for keys that say how a model is tested, not what it is.

    Raises:
        CheckpointError: Not the folder of a run, or no finished stage in it.
        RecipeError: A wrong override, or one of another key.
    """
    _check_of_tests(overrides, folder)
    own, purpose = read_folder(folder)
    recipe = read_folder(folder, overrides)[0] if overrides else own
    if (recipe.condition == "embedding") != (own.condition == "embedding"):
        text = (
            f"condition: trained with '{own.condition}', which '{recipe.condition}' cannot replace"
        )
        raise RecipeError([text], str(folder))
    if purpose not in ("run", STAGES):
        raise CheckpointError(
            f"{folder}: holds a matrix, expected a run; its results are in matrix_*.csv, and "
            f"`domainnorm matrix --resume {folder}` goes on with it"
        )
    # Tests have real images alone, and those that were made need not be there any more.
    parts = Parts(replace(recipe, data=replace(recipe.data, generated=None)))
    stages = [stage for stage in plan_stages(recipe) if (folder / stage.key / WEIGHTS).exists()]
    if not stages:
        raise CheckpointError(f"{folder}: no finished stage; go on with `run --resume {folder}`")
    with on_all_ranks(recipe):
        prepare(recipe)
        results: list[report.Result] = []
        for stage in stages:
            check_same_images(folder / stage.key, parts, stage)
            online = METHODS.load(stage.method.name).protocol == "online"  # its test is done again
            bench = set_up(parts, stage, folder, finished=not online)
            again = score(bench, predict(bench), seconds=0.0)
            results += _as_trained(again, folder / stage.key / RESULTS, facts=not overrides)
        console = create_console()
        if overrides:
            console.print(f"tested with {' '.join(overrides)}", markup=False, highlight=False)
        console.print(report.results_table(results, parts.metric))


def _as_trained(again: list[report.Result], file: Path, *, facts: bool) -> list[report.Result]:
    """Results of a test, with what was trained, how long, and what the method found out then."""
    if not file.exists():
        return again
    stored = report.load_results(file)
    metrics = {one.domain: one.metrics if facts else {} for one in stored}
    return [
        replace(
            one,
            metrics={**metrics.get(one.domain, {}), **one.metrics},
            trained_parameters=stored[0].trained_parameters,
            trained_bytes=stored[0].trained_bytes,
            seconds=stored[0].seconds,
        )
        for one in again
    ]


def _check_of_tests(overrides: Sequence[str], folder: Path) -> None:
    keys = [word.partition("=")[0] for word in overrides]
    wrong = [
        f"{key}: a finished run is what it was; test takes {', '.join(_OF_TESTS)}"
        for key in keys
        if not any(f"{key}.".startswith(f"{known}.") for known in _OF_TESTS)
    ]
    if wrong:
        raise RecipeError(wrong, str(folder))


def _carry_out(parts: Parts, folder: Path, *, page: bool = True) -> None:
    """Carry out what is not done yet of a run in its folder, and print its table.

    Figures and the page are made unless there shall be no ``page``.
    """
    recipe, console = parts.recipe, create_console()
    prepare(recipe)
    stages = plan_stages(recipe)
    console.print(f"[bold]{recipe.name}[/bold]: {_count(stages)} → {folder}", soft_wrap=True)
    for note in [*remarks(recipe), *told_of(parts.dataset)]:
        console.print(f"  {note}", markup=False, highlight=False, soft_wrap=True)
    results: list[report.Result] = []
    begun, trains = time.perf_counter(), any(not _is_finished(stage, folder) for stage in stages)
    took: list[tuple[str, float]] = []
    for number, stage in enumerate(stages, 1):
        title = f"{stage.transfer}  seed {stage.seed}  {stage.label}"
        is_new = not _is_finished(stage, folder)
        ahead = [one.label for one in stages[number - 1 :] if not _is_finished(one, folder)]
        left = time_left(took, ahead) if is_new else ""
        console.print(f"[{number}/{len(stages)}] {title}{left}", markup=False)
        started = time.perf_counter()
        done = run_stage(parts, stage, folder)
        results += done
        if is_first():
            _write(results, folder, parts.metric)
        seconds = time.perf_counter() - started
        if is_new:
            took.append((stage.label, seconds))
        console.print(f"      {_outcome(done, parts.metric)}  ({seconds:.0f} s)")
    if is_first() and (trains or not (folder / COST).exists()):  # a kill may have come before
        write_cost(folder / COST, time.perf_counter() - begun)
    if is_first() and page:
        # Deferred: what draws is read when there is something to draw.
        from domainnorm.run.figures import save_run_figures  # noqa: PLC0415

        places = {(one.transfer, one.label, one.seed): folder / one.key for one in stages}
        results = with_ensv([(r, places[r.transfer, r.method, r.seed]) for r in results])
        save_run_figures(parts, results, folder)
        images = report.images_markdown(parts.dataset, recipe.domains, recipe.dataset.name)
        given = _given(recipe)
        _write(results, folder, parts.metric, given, _by_class(parts, results, places), images)
        write_page(folder)
        if trains:
            _log_figures(recipe, folder)
    console.print(report.results_table(results, parts.metric))


def _log_figures(recipe: Recipe, folder: Path) -> None:
    """Give loggers what has been drawn, as a run of its own: many figures are of all stages."""
    loggers = create_loggers(recipe.trainer.logger, folder, "figures")
    with recording(loggers, {}):
        for logger in loggers:
            for file in sorted((folder / "figures").glob("*.png")):
                logger.log_figure(file)


def time_left(took: Sequence[tuple[str, float]], ahead: Sequence[str]) -> str:
    """What stages ahead may take, by those done: of the same method, else of all; "" of none.

    Args:
        took: Method and seconds of each stage done.
        ahead: Methods of the others.
    """
    if not took:
        return ""
    means = {
        method: fmean(seconds for one, seconds in took if one == method)
        for method in dict.fromkeys(one for one, _ in took)
    }
    usual = fmean(seconds for _, seconds in took)
    minutes = sum(means.get(method, usual) for method in ahead) / 60
    if minutes < 1:
        return "  less than a minute left"
    return f"  about {f'{minutes:.0f} min' if minutes < 100 else f'{minutes / 60:.0f} h'} left"


def _is_finished(stage: Stage, folder: Path) -> bool:
    return (folder / stage.key / RESULTS).exists()


def _write(results: list[report.Result], folder: Path, metric: str, *more: str) -> None:
    report.results_json(results, folder / "metrics.json")
    report.results_csv(results, folder / "metrics.csv")
    tables = [report.results_markdown(results, metric), *more]
    tables.append(report.validators_markdown(results, metric))
    write_results(folder, "\n".join(filter(None, tables)))


def _given(recipe: Recipe) -> str:
    """Where a source model comes from that the run has not trained."""
    if recipe.checkpoint is None:
        return ""
    return f"`source_only` was not trained in this run: its weights are of `{recipe.checkpoint}`.\n"


def _by_class(
    parts: Parts, results: Sequence[report.Result], places: Mapping[tuple[str, str, int], Path]
) -> str:
    """Tables of single classes on the targets, from what stages have stored."""
    found = []
    for one in results:
        if one.role == "target" and one.is_scored:
            place = places[one.transfer, one.method, one.seed]
            said = load_evaluated(place / f"predictions-{one.domain}.safetensors")
            if (scores := said.by_class()) is not None:
                found.append((one, scores))
    return report.classes_markdown(found, parts.dataset.class_names, parts.metric)


def _count(stages: list[Stage]) -> str:
    transfers = len({stage.transfer for stage in stages})
    seeds = len({stage.seed for stage in stages})
    methods = len({stage.label for stage in stages})
    counts = ((transfers, "transfer"), (seeds, "seed"), (methods, "method"))
    return " × ".join(counted(count, word) for count, word in counts)


def _outcome(results: list[report.Result], metric: str) -> str:
    shown = [
        f"{result.domain} {result.metrics[metric]:.3f}"
        if result.is_scored
        else f"{result.domain} – (no labels)"
        for result in results
    ]
    facts = {key: value for result in results for key, value in result.metrics.items()}
    return "  ".join(filter(None, [*shown, report.settled(facts)]))
