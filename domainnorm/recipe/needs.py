"""Whether methods may find nothing in the norms of a recipe that they could change."""

from __future__ import annotations

from domainnorm.recipe.norm import lacking, takes_pixels
from domainnorm.recipe.registries import METHODS
from domainnorm.recipe.schema import Named, Recipe


def needs_network(recipe: Recipe) -> bool:
    """Whether only the network can tell if the methods and norms of a run go together.

    Named norms may have nothing that a method needs, but the network may have layers that keep
    their kin; and moments over the pixels of an image want a map of more than one.

    Args:
        recipe: A checked recipe.
    """
    without = lacking(recipe.norm)
    asked = any(_needs(named) & without for named in (recipe.method, *recipe.compare))
    return asked or takes_pixels(recipe.norm)


def _needs(named: Named) -> set[str]:
    """What a method with its options asks of norms."""
    found = {str(METHODS.entry(named.name).constants.get("needs", ""))}
    if named.options.get("rows_weight"):
        found.add("rows")
    if named.options.get("train") == "norms":
        found.add("weights")
    return found
