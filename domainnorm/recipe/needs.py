"""Whether the methods of a run can work with its norms; known from their names alone."""

from __future__ import annotations

from domainnorm.errors import RecipeError
from domainnorm.methods.needs import NEEDS, no_rows, nothing_of
from domainnorm.recipe.norm import lacking
from domainnorm.recipe.problems import Problems
from domainnorm.recipe.registries import METHODS
from domainnorm.recipe.schema import Recipe


def check_needs(recipe: Recipe) -> None:
    """Refuse a run of which a method is certain to find nothing in the norms that it could change.

    A matrix trains other methods than the recipe names, so a good recipe need not be a good run.
    Layers that keep their kin, as all do without ``norm``, are known once the network is there.

    Args:
        recipe: A checked recipe.

    Raises:
        RecipeError: In the words that the method itself would say.
    """
    without, problems = lacking(recipe.norm), Problems()
    for position, named in enumerate((recipe.method, *recipe.compare)):
        key = f"compare[{position - 1}]" if position else "method"
        need = METHODS.entry(named.name).constants.get("needs", "")
        if need in without:
            problems.add(key, f"{named.name}: {NEEDS[need]}")
        if named.options.get("rows_weight") and "rows" in without:
            problems.add(f"{key}.rows_weight", no_rows(named.options["rows_weight"]))
        if named.options.get("train") == "norms" and "weights" in without:
            problems.add(f"{key}.train", nothing_of("norms"))
    if problems:
        raise RecipeError(problems.lines, recipe.name)
