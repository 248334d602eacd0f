"""List what is there: recipes, parts, methods, norms and their halves, datasets, tasks."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from domainnorm import recipe
from domainnorm.cli.parser import Parser
from domainnorm.errors import RecipeError, unknown
from domainnorm.norms.catalogue import CATALOGUE
from domainnorm.registry import (
    DATASETS,
    ENCODERS,
    METHODS,
    MODULATIONS,
    PERTURBATIONS,
    STATISTICS,
    TASKS,
    Registry,
)


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    text = f"one of {', '.join(_KINDS)}; everything when left out"
    parser.add_argument("kind", nargs="?", metavar="KIND", help=text)


def execute(arguments: Namespace) -> int:
    """Print a table of names and one-line summaries for each kind."""
    # Deferred: loading rich takes longer than everything else `domainnorm --help` does.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    kind = arguments.kind
    if kind is not None and kind not in _KINDS:
        raise RecipeError([unknown("kind", kind, _KINDS)], where="domainnorm list")
    console = Console(highlight=False)
    for name in [kind] if kind else _KINDS:
        table = Table(title=name, title_justify="left", box=None, show_header=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for entry, summary in _KINDS[name]().items():
            table.add_row(entry, summary)
        console.print(table)
        console.print()
    return 0


def _files(kind: str) -> Callable[[], dict[str, str]]:
    def rows() -> dict[str, str]:
        return recipe.list_shipped(kind)

    return rows


def _registered(registry: Registry) -> Callable[[], dict[str, str]]:
    def rows() -> dict[str, str]:
        return {name: registry.entry(name).summary for name in registry.names()}

    return rows


def _norms() -> dict[str, str]:
    return {
        name: f"{spec.statistics} × {spec.modulation}: {spec.use}"
        for name, spec in CATALOGUE.items()
    }


_KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "recipes": _files("recipes"),
    "configs": _files("configs"),
    "methods": _registered(METHODS),
    "norms": _norms,
    "statistics": _registered(STATISTICS),
    "modulations": _registered(MODULATIONS),
    "perturbations": _registered(PERTURBATIONS),
    "encoders": _registered(ENCODERS),
    "datasets": _registered(DATASETS),
    "tasks": _registered(TASKS),
}
