"""Go on with an interrupted run."""

from __future__ import annotations

from pathlib import Path

from domainnorm.run.execute import carry_out
from domainnorm.run.folder import read_folder
from domainnorm.run.matrix import carry_out_matrix
from domainnorm.run.parts import Parts
from domainnorm.run.ranks import on_all_ranks


def resume_run(folder: Path) -> Path:
    """Finished stages are read, a stage in the middle goes on from its last epoch.

    The result is the same, weights included, as that of a run that was never interrupted.

    Args:
        folder: What `run_recipe` or `run_matrix` made.

    Raises:
        CheckpointError: Not a run folder, or a truncated checkpoint.
        RecipeError: The recipe in it was edited into something wrong.
    """
    recipe, purpose = read_folder(folder)
    if purpose == "run":
        parts = Parts(recipe)
        with on_all_ranks(recipe):
            carry_out(parts, folder)
    else:
        with on_all_ranks(recipe):
            carry_out_matrix(recipe, folder, purpose)
    return folder
