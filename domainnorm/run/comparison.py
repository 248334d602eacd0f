"""A comparison: cells of a grid as run folders, equal stages once, one table and one page."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from domainnorm import report
from domainnorm.errors import CheckpointError, DomainNormError, RecipeError, counted
from domainnorm.loggers import check_loggers
from domainnorm.recipe import Grid, GridCell, Named, Recipe, label_of, needs_network
from domainnorm.recipe.grid import each_checked, short
from domainnorm.registry import METHODS, TASKS
from domainnorm.run.engines import LOG, Engine, Job
from domainnorm.run.machine import describe_environment
from domainnorm.run.parts import Parts
from domainnorm.run.plan import SOURCE_ONLY, plan_stages
from domainnorm.run.run_folder import (
    COMPARISON,
    COST,
    PAGE,
    RESULTS,
    STAGES,
    fill_folder,
    make_folder,
    read_folder,
    write_page,
    write_results,
)
from domainnorm.run.scoring import with_ensv
from domainnorm.run.trial import rehearse_stages, sample_recipe
from domainnorm.storage import DAMAGED, make_folders, write_json
from domainnorm.terminal import create_console

GRID, METRICS = "grid.json", "metrics.json"
_NO_COLUMNS = ("method", "compare", "seed", "data.source", "data.target", "data.transfers")
_PAUSE = 0.1  # seconds between looks at what runs


@dataclass
class Unit:
    """A run folder of a comparison, which one process carries out.

    Args:
        folder: Below that of the comparison.
        recipe: With one seed.
        label: For people.
        values: Of the grid, of a cell; None where it trains a stage that several cells have.
        needs: Units that train stages of this one, by the name of their method.
        state: ``waiting``, ``running``, ``finished`` or ``failed``.
        error: The last line of what a failed one said.
        begun: When its process was started.
    """

    folder: Path
    recipe: Recipe
    label: str
    values: dict[str, Any] | None = None
    needs: dict[str, Unit] = field(default_factory=dict)
    state: str = "waiting"
    error: str = ""
    begun: float = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether every stage has results, and what comes last is there, of a cell its page."""
        last = COST if self.values is None else PAGE
        files = [self.folder / stage.key / RESULTS for stage in plan_stages(self.recipe)]
        return all(file.is_file() for file in (*files, self.folder / last))


def sample_cells(cells: Sequence[GridCell], folder: Path) -> list[GridCell]:
    """Cells small enough to try them, on samples of their data; see `sample_recipe`."""
    places: dict[str, Path] = {}
    found = []
    for cell in cells:
        # Other domains are other samples.
        key = repr((cell.recipe.dataset, cell.recipe.domains))
        place = places.setdefault(key, folder / str(len(places)))
        found.append(replace(cell, recipe=sample_recipe(cell.recipe, place)))
    return found


def check_grid(grid: Grid) -> None:
    """Refuse what a run of any cell would refuse before it trains.

    Raises:
        RecipeError: Every problem, with the cells that have it.
    """
    datasets: dict[str, Parts] = {}

    def check(recipe: Recipe) -> None:
        check_loggers(recipe.trainer.logger, recipe.name)
        asked = recipe.domains, recipe.data.attributes, recipe.data.corrupt, recipe.data.translate
        key = repr((recipe.read_dataset, *asked))
        try:
            parts = copy(datasets[key]) if key in datasets else Parts(recipe)
            parts.recipe = recipe
            datasets.setdefault(key, parts)
            stages = plan_stages(recipe)
            parts.check_images(stages)
        except RecipeError:
            raise
        except DomainNormError as error:
            raise RecipeError([str(error)], recipe.name) from error
        if needs_network(recipe):
            rehearse_stages(parts, stages)

    def of_any_seed(recipe: Recipe) -> Recipe:
        # What seeds differ in, nothing refuses, but a run without a source model of one of them.
        return recipe if recipe.checkpoint else replace(recipe, seeds=[0])

    first = {of_any_seed(cell.recipe).to_yaml(): cell for cell in reversed(grid.cells)}
    recipes = {cell.label: cell.recipe for cell in reversed(first.values())}
    each_checked(recipes, check, grid.name)


def plan_units(cells: Sequence[GridCell], folder: Path) -> list[Unit]:
    """Run folders of a comparison: stages that several cells have first, then the cells."""
    plans = [_stage_keys(cell.recipe, _base(cell.recipe)) for cell in cells]
    counts = Counter(key for keys in plans for _, key in keys)
    shared: dict[str, Unit] = {}
    for rank in (True, False):  # source models come before what starts from them
        for cell, keys in zip(cells, plans, strict=True):
            source = next((one for one, _ in keys if one.label == SOURCE_ONLY), None)
            for method, key in keys:
                if (method is source) is rank and counts[key] > 1 and key not in shared:
                    unit = _shared_unit(cell, method, source, folder, len(shared) + 1)
                    if unit.recipe.compare:
                        unit.needs = _needed([one for one in keys if one[0] is source], shared)
                    shared[key] = unit
    digits = max(2, len(str(len(cells))))
    own = [
        Unit(
            folder / "cells" / f"{number:0{digits}d}_{cell.slug}",
            cell.recipe,
            cell.label,
            cell.values,
            _needed(keys, shared),
        )
        for number, (cell, keys) in enumerate(zip(cells, plans, strict=True), 1)
    ]
    return [*shared.values(), *own]


def _needed(keys: Iterable[tuple[Named, str]], shared: Mapping[str, Unit]) -> dict[str, Unit]:
    return {method.label: shared[key] for method, key in keys if key in shared}


def _shared_unit(
    cell: GridCell, method: Named, source: Named | None, folder: Path, number: int
) -> Unit:
    recipe = replace(cell.recipe, method=method, compare=[])
    if source not in (None, method) and any(m.label == SOURCE_ONLY for m in _methods(recipe)):
        recipe = replace(recipe, compare=[source])  # with the options that it has here
    differs = {key: value for key, value in cell.values.items() if not of_method(key)}
    label = " ".join(filter(None, (method.label, label_of(differs))))
    slug = GridCell({"method": label}, recipe).slug
    return Unit(folder / "shared" / f"{number:02d}_{slug}", recipe, label)


def of_method(key: str) -> bool:
    """Whether a key of a recipe says which methods it has, or how they are."""
    return key.partition(".")[0] in ("method", "compare")


def _methods(recipe: Recipe) -> list[Named]:
    return list({stage.label: stage.method for stage in plan_stages(recipe)}.values())


def _base(recipe: Recipe) -> str:
    return replace(recipe, method=Named(SOURCE_ONLY), compare=[]).to_yaml()


def _stage_keys(recipe: Recipe, base: str) -> list[tuple[Named, str]]:
    """The methods of a recipe's stages, each with text that is equal for equal stages.

    ``base`` is what stands for all but the methods.
    """
    methods = _methods(recipe)
    source = [one for one in methods if one.label == SOURCE_ONLY]
    starts = {
        one.label: source if METHODS.load(one.name).starts_from == SOURCE_ONLY else []
        for one in methods
    }
    return [(one, f"{base}{one!r}{starts[one.label]!r}") for one in methods]


def run_comparison(
    grid: Grid, output: Path, make_engine: Callable[[Sequence[Recipe], Path], Engine]
) -> Path:
    """Carry out every cell in a new folder, ``output/<recipe>/compare-<time>/``.

    Returns:
        The folder: ``report.html``, ``results.md``, ``comparison.csv``, ``comparison.json``,
        ``figures/``, a run folder for each cell in ``cells/``, and in ``shared/`` one for each
        stage that several cells have.

    Raises:
        RecipeError: What any cell's run would refuse before it trains.
        DomainNormError: Cells failed; the others are finished.
    """
    check_grid(grid)
    folder = make_folder(grid.cells[0].recipe, output, COMPARISON, describe_environment())
    units = plan_units(grid.cells, folder)
    for unit in units:
        make_folders(unit.folder, new=True)
        fill_folder(unit.folder, unit.recipe, STAGES if unit.values is None else "run")
    # Last: a folder with a grid is one that can be gone on with.
    write_json({"cells": [cell.values for cell in grid.cells]}, folder / GRID)
    _carry_out(units, folder, make_engine([unit.recipe for unit in units], folder))
    return folder


def resume_comparison(
    folder: Path, make_engine: Callable[[Sequence[Recipe], Path], Engine]
) -> Path:
    """Go on with a comparison: what is finished stays, what failed is tried again.

    Raises:
        CheckpointError: Not the folder of a comparison.
        DomainNormError: Cells failed; the others are finished.
    """
    try:
        values = json.loads((folder / GRID).read_text(encoding="utf-8"))["cells"]
        places = sorted((folder / "cells").iterdir())
        recipes = [read_folder(place)[0] for place in places]
        cells = [GridCell(dict(one), recipe) for one, recipe in zip(values, recipes, strict=True)]
    except DAMAGED as error:
        raise CheckpointError(
            f"{folder}: cannot be read as a comparison ({error}); expected a folder that "
            "`domainnorm compare` has made, outputs/<recipe>/compare-<time>"
        ) from error
    units = plan_units(cells, folder)
    _carry_out(units, folder, make_engine([unit.recipe for unit in units], folder))
    return folder


def describe_plan(grid: Grid) -> str:
    """What a comparison would carry out, a line for each run."""
    units = plan_units(grid.cells, Path())
    lines = []
    for unit in units:
        needs = ", ".join(need.label for need in unit.needs.values())
        kind = "cell" if unit.values is not None else "once"
        lines.append(f"{kind}  {unit.label}{f'  (takes {needs})' if needs else ''}")
    return "\n".join([*lines, _size(units)])


def _size(units: Sequence[Unit]) -> str:
    cells = sum(unit.values is not None for unit in units)
    once = len(units) - cells
    return f"{counted(cells, 'cell')}, {counted(once, 'stage')} of several cells trained once"


def _carry_out(units: list[Unit], folder: Path, engine: Engine) -> None:
    console = create_console()
    console.print(
        f"[bold]{units[-1].recipe.name}[/bold]: {_size(units)} → {folder}", soft_wrap=True
    )
    for unit in units:
        unit.state = "finished" if unit.is_finished else "waiting"
    with _Progress(units, engine.jobs, console) as progress:
        running: dict[Path, Job] = {}
        try:
            while any(unit.state in ("waiting", "running") for unit in units):
                for unit in _advance(units, running, engine):
                    progress.tell(unit)
                    if unit.values is not None:
                        _write(units, folder)
                time.sleep(_PAUSE)
        finally:
            engine.stop(list(running.values()))
    table = _write(units, folder)
    if table is not None:
        console.print(table)
    failed = [unit for unit in units if unit.state == "failed" and unit.values is not None]
    if failed:
        listing = "".join(f"\n  {unit.label}: {unit.error}" for unit in failed)
        raise DomainNormError(
            f"{len(failed)} of {counted(sum(u.values is not None for u in units), 'cell')} failed; "
            f"`domainnorm compare --resume {folder}` tries them again{listing}"
        )


def _advance(units: list[Unit], running: dict[Path, Job], engine: Engine) -> Iterator[Unit]:
    """Start what is ready, and give what has ended since the last look."""
    for unit in units:
        if unit.state == "running":
            code = running[unit.folder].poll()
            if code is not None:
                del running[unit.folder]
                unit.state = "failed" if code else "finished"
                unit.error = _last_words(unit.folder / LOG, code) if code else ""
                yield unit
        elif unit.state == "waiting":
            lost = [need for need in unit.needs.values() if need.state == "failed"]
            if lost:
                unit.state, unit.error = "failed", f"{lost[0].label}: {lost[0].error}"
                yield unit
            elif len(running) < engine.jobs and _is_ready(unit):
                _take_stages(unit)
                job = engine.start(unit.folder, running.values())
                if job is not None:  # else an earlier process is still at it
                    running[unit.folder], unit.state, unit.begun = job, "running", time.monotonic()


def _is_ready(unit: Unit) -> bool:
    return all(need.state == "finished" for need in unit.needs.values())


def _take_stages(unit: Unit) -> None:
    """Put the stages that were trained once where those of the unit are looked for."""
    for stage in plan_stages(unit.recipe):
        place, need = unit.folder / stage.key, unit.needs.get(stage.label)
        if need is None or (place / RESULTS).exists():
            continue
        source = need.folder / stage.key
        files = [file for file in source.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda one: one.name == RESULTS):  # makes it a finished one
            target = place / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(file, target)
            except OSError:  # a file system without links
                shutil.copy2(file, target)


def _last_words(log: Path, code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}{', often for want of memory' if name == 'SIGKILL' else ''}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    words = [line.strip() for line in lines if line.strip()]
    return words[-1].removeprefix("- ") if words else f"exit code {code}"


class _Progress:
    """A line for each run that has ended, and on a terminal a bar below them."""

    def __init__(self, units: Sequence[Unit], jobs: int, console: Console) -> None:
        self._units, self._jobs = units, jobs
        self._seconds: list[float] = []
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=len(units), completed=self._done())

    def _done(self) -> int:
        return sum(unit.state in ("finished", "failed") for unit in self._units)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def tell(self, unit: Unit) -> None:
        """Say how a run has ended, and about how long the others will take."""
        done, taken = self._done(), time.monotonic() - unit.begun if unit.begun else 0.0
        if unit.state == "finished":
            self._seconds.append(taken)
        left = ""
        if self._seconds and done < len(self._units):
            each = sum(self._seconds) / len(self._seconds)
            rounds = math.ceil((len(self._units) - done) / self._jobs)
            left = f"about {report.duration(each * rounds)} left"
        said = _outcome(unit) if unit.state == "finished" else f"failed: {unit.error}"
        times = ", ".join(filter(None, (report.duration(taken), left)))
        line = f"[{done}/{len(self._units)}] {unit.label}  {said}  ({times})"
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._bar.update(self._task, completed=done, description=left)


def _outcome(unit: Unit) -> str:
    metric = _metric(unit.recipe)
    own = [one for one in _results(unit) if one.method == unit.recipe.method.label]
    targets = [one for one in own if one.role == "target"] or own
    return "  ".join(f"{one.domain} {one.metrics.get(metric, math.nan):.3f}" for one in targets)


def _metric(recipe: Recipe) -> str:
    return str(TASKS.entry(recipe.task.name).constants["metric"])


def _results(unit: Unit) -> list[report.Result]:
    return report.load_results(unit.folder / METRICS)


def _write(units: Sequence[Unit], folder: Path) -> Table | None:
    """Write tables, figure and page of what is finished; the table for a terminal."""
    cells = [unit for unit in units if unit.values is not None]
    arms = _arms([cell for cell in cells if cell.state == "finished"])
    listed = [
        report.ComparedCell(cell.label, cell.folder.relative_to(folder), cell.state, cell.error)
        for cell in cells
    ]
    if not arms:
        write_results(folder, report.cells_markdown(listed))
        write_page(folder)
        return None
    compared = report.compare_arms(arms, _metric(cells[0].recipe))
    report.comparison_json(compared, listed, folder / "comparison.json")
    report.comparison_csv(compared, folder / "comparison.csv")
    report.save_comparison(compared, folder / "figures" / f"{compared.metric}.png")
    tables = report.comparison_markdown(compared), report.ranks_markdown(compared)
    write_results(folder, "\n".join(filter(None, (*tables, report.cells_markdown(listed)))))
    write_page(folder)
    return report.comparison_table(compared)


def _arms(cells: Sequence[Unit]) -> list[report.Arm]:
    """The methods of the cells under every setting, each once, with the results of all seeds."""
    arms: dict[str, report.Arm] = {}
    found: dict[tuple[str, tuple[str, str, int]], tuple[report.Result, Path]] = {}
    for cell in cells:
        values = cell.values or {}
        own = cell.recipe.method.label
        settings = {key: short(of) for key, of in values.items() if key not in _NO_COLUMNS}
        elsewhere = {key: "–" if of_method(key) else of for key, of in settings.items()}
        # Arms differ in neither seeds nor shifts, which have columns.
        data = replace(cell.recipe.data, source=[], target=[], transfers=[])
        group = _base(replace(cell.recipe, seeds=[0], data=data))
        keys = {method.label: key for method, key in _stage_keys(cell.recipe, group)}
        stages = plan_stages(cell.recipe)
        places = {(one.transfer, one.label, one.seed): cell.folder / one.key for one in stages}
        for result in _results(cell):
            name = result.method
            if name == own and "method" in values:
                name = short(values["method"])
            shown = settings if result.method == own else elsewhere
            arm = arms.setdefault(keys[result.method], report.Arm(name, shown, group))
            key = result.transfer, result.domain, result.seed
            place = places[result.transfer, result.method, result.seed]
            found.setdefault((keys[result.method], key), (result, place))
            arm.add_cost(_cost(cell.needs.get(result.method, cell).folder / COST))
    for (name, key), one in zip(found, with_ensv(list(found.values())), strict=True):
        arms[name].results[key] = one
    return list(arms.values())


def _cost(file: Path) -> dict[str, int]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {key: int(stored[key]) for key in ("resident_bytes", "device_bytes")}
    except DAMAGED as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); put back what it was") from error
