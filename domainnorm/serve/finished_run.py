"""What a finished run has left, for programs: models, data, predictions and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

from domainnorm.backbones import DomainModel
from domainnorm.data import DomainDataModule, DomainDataset
from domainnorm.evaluation import Evaluated, load_evaluated
from domainnorm.methods import Roles
from domainnorm.recipe import Recipe
from domainnorm.report import Result, load_results
from domainnorm.run.models import find_stage, finished_stages, kept_epoch, stored_model
from domainnorm.run.parts import Parts
from domainnorm.run.plan import Stage, supervised_method
from domainnorm.run.run_folder import RESULTS, read_folder
from domainnorm.run.stage import check_same_images


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as `load_run` returns it; each part is read on first use.

    The name of a stage is the end of its path, as long as it is unique: ``tent``, ``seed1/tent``,
    or one of `stages` in full. An empty name means the stage with the recipe's method.

    Args:
        folder: Folder of the run.
        recipe: Resolved, with overrides of `load_run`.
    """

    folder: Path
    recipe: Recipe

    @property
    def stages(self) -> list[str]:
        """Finished ones: ``<transfer>/seed<n>/<method>``."""
        return ["/".join(place.parts[-3:]) for place in finished_stages(self.folder)]

    def model(self, stage: str = "", *, epoch: int | None = None) -> DomainModel:
        """The model that a stage has left, in evaluation mode; the data are not needed.

        Args:
            stage: See the class.
            epoch: One of those that ``trainer.keep_best`` or ``keep_every`` has kept, from 1; None
                for the model that was tested.

        Raises:
            CheckpointError: No such stage, several, an epoch that was not kept, or weights that are
                damaged.
        """
        place = find_stage(self.folder, self.recipe, stage)
        if epoch is not None:
            place = kept_epoch(place, epoch)
        return stored_model(self.recipe, place)[0]

    def predictions(self, stage: str = "") -> dict[str, Evaluated]:
        """What a stage has predicted on the test images of every domain.

        ``index`` of a prediction is a position in ``dataset.records``.

        Raises:
            CheckpointError: No such stage, several, or files that are damaged.
        """
        place = find_stage(self.folder, self.recipe, stage)
        names = [result.domain for result in load_results(place / RESULTS)]
        return {name: load_evaluated(place / f"predictions-{name}.safetensors") for name in names}

    @cached_property
    def results(self) -> list[Result]:
        """Metrics with their intervals, of every finished stage and domain.

        Raises:
            CheckpointError: A file that is damaged.
        """
        places = finished_stages(self.folder)
        return [one for place in places for one in load_results(place / RESULTS)]

    def data(self, stage: str = "") -> DomainDataModule:
        """Loaders of a stage, which hold what its method may see, and all domains for tests.

        Raises:
            CheckpointError: No such stage, several, or other data than it was trained on.
            DataError: The data are not where the recipe has them.
        """
        place = find_stage(self.folder, self.recipe, stage)
        results = load_results(place / RESULTS)
        source = tuple(one.domain for one in results if one.role == "source")
        target = tuple(one.domain for one in results if one.role == "target")
        asked = (self.recipe.method, *self.recipe.compare)
        named = [one for one in asked if one.label == place.name]
        method = named[0] if named else supervised_method(self.recipe, place.name)
        roles = Roles(source, target, self.recipe.data.rows)
        model, stage_of = stored_model(self.recipe, place)[0], Stage(roles, results[0].seed, method)
        check_same_images(place, self._parts, stage_of)
        return self._parts.data(stage_of, model)

    @property
    def dataset(self) -> DomainDataset:
        """The images of the recipe; all stages have the same.

        Raises:
            DataError: The data are not where the recipe has them.
        """
        return self._parts.dataset

    @cached_property
    def _parts(self) -> Parts:
        return Parts(self.recipe)


def load_run(folder: str | PathLike[str], overrides: Sequence[str] = ()) -> FinishedRun:
    """Load a run of the command line in Python.

    Args:
        folder: ``outputs/<recipe>/<time>``; some of its stages may be unfinished.
        overrides: ``key=value`` for data that have moved, such as ``data.root=/mnt/images``.

    Raises:
        CheckpointError: Not the folder of a run, or that of a comparison, whose runs are in
            ``cells``.
        RecipeError: Its recipe was edited into something wrong, or an override is.
    """
    recipe, _ = read_folder(Path(folder), overrides)
    return FinishedRun(Path(folder), recipe)
