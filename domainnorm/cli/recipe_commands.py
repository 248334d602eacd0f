"""Commands about recipes: what there is, one shown, checked, copied."""

from __future__ import annotations

import re
import shutil
import sys
from argparse import Namespace
from pathlib import Path

from domainnorm import recipe, run
from domainnorm.cli.parser import Command, Parser
from domainnorm.cli.reference import REGISTRIES, describe, entries_of, made_pages
from domainnorm.errors import DataError, DomainNormError, RecipeError, unknown
from domainnorm.norms.catalogue import CATALOGUE
from domainnorm.recipe.tree import split_overrides
from domainnorm.terminal import create_console, say

_KINDS = ("recipes", "configs", "methods", "norms", *tuple(REGISTRIES)[1:])


def _configure_list(parser: Parser) -> None:
    text = f"one of {', '.join(_KINDS)} (default: all of them)"
    parser.add_argument("kind", nargs="?", metavar="KIND", help=text)
    text = "one of these, such as tent: what it does, its keys, its source"
    parser.add_argument("name", nargs="?", metavar="NAME", help=text)


def _list(arguments: Namespace) -> int:
    """Print a table of names and one-line summaries for each kind, or what one name is."""
    # Deferred: loading rich takes longer than everything else `domainnorm --help` does.
    from rich.table import Table  # noqa: PLC0415

    kind = arguments.kind
    if kind is not None and kind not in _KINDS:
        raise RecipeError([unknown("kind", kind, _KINDS)], where="domainnorm list")
    if arguments.name is not None:
        _print_markdown(describe(kind, arguments.name))
        return 0
    console = create_console()
    for name in [kind] if kind else _KINDS:
        table = Table(title=name, title_justify="left", box=None, show_header=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for entry, summary in _rows(name).items():
            table.add_row(entry, summary)
        console.print(table)
        console.print()
    return 0


def _rows(kind: str) -> dict[str, str]:
    """Names of one kind, with what each is in a line."""
    if kind == "norms":
        specs = CATALOGUE.items()
        return {name: f"{one.statistics} × {one.modulation}: {one.use}" for name, one in specs}
    if kind not in REGISTRIES:
        return recipe.list_shipped(kind)
    return {name: entry.summary for name, entry in entries_of(kind).items()}


def _show(arguments: Namespace) -> int:
    """Print the resolved YAML, highlighted on a terminal and plain in a pipe."""
    text = recipe.load_recipe(arguments.recipe, arguments.overrides).to_yaml()
    if sys.stdout.isatty():
        # Deferred: loading rich takes longer than all the rest, and a pipe needs none of it.
        from rich.syntax import Syntax  # noqa: PLC0415

        create_console().print(Syntax(text, "yaml", background_color="default"))
    else:
        say(text, end="")
    return 0


def _configure_check(parser: Parser) -> None:
    text = "names of shipped recipes or paths of YAML files; key=value changes a key in all of them"
    parser.add_argument("words", nargs="+", metavar="RECIPE [key=value]", help=text)
    text = (
        "also build every network and pass a batch of noise through it; this needs the data and "
        "reads a few masks. Norms that some networks refuse are always checked in this way"
    )
    parser.add_argument("--build", action="store_true", help=text)


def _check(arguments: Namespace) -> int:
    """Print ``ok`` for a good recipe and the problems of a bad one."""
    references, overrides = split_overrides(arguments.words)
    if not references:
        raise RecipeError(["no recipe given, only overrides"], where="domainnorm check")
    code = 0
    for reference in references:
        try:
            loaded = recipe.load_recipe(reference, overrides)
            if arguments.build:
                run.rehearse(loaded)
            elif recipe.needs_network(loaded):
                _build(loaded, reference)
        except RecipeError as error:
            say(RecipeError(error.problems, reference), error=True)
            code = 2
        else:
            say(f"ok  {reference}")
            for remark in recipe.remarks(loaded):
                say(f"    {remark}", error=True)
    return code


def _build(loaded: recipe.Recipe, reference: str) -> None:
    """Ask the network, if there are data to make it for."""
    try:
        run.rehearse(loaded)
    except RecipeError as error:
        if not isinstance(error.__cause__, DataError):
            raise
        say(f"{reference}: the norms were not checked: {error.__cause__}", error=True)


def _configure_copy(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="name of a shipped recipe")
    text = "file or folder to copy to (default: the recipe's file name in this folder)"
    parser.add_argument("destination", nargs="?", default=".", metavar="DEST", help=text)
    parser.add_argument("--force", action="store_true", help="overwrite the destination")


def _copy(arguments: Namespace) -> int:
    """Copy the file as it is, comments included; its parts stay where they ship."""
    source = recipe.find_recipe(arguments.recipe)
    destination = Path(arguments.destination)
    if destination.is_dir() or arguments.destination.endswith("/"):
        destination = destination / source.name
    elif destination.suffix not in (".yaml", ".yml"):
        destination = destination.with_name(f"{destination.name}.yaml")
    if destination.exists() and not arguments.force:
        raise DomainNormError(f"{destination} exists; use --force to overwrite it")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    except (OSError, shutil.SameFileError) as error:
        raise DomainNormError(f"{destination}: cannot be written ({error})") from error
    say(f"copied to {destination}; edit it, then: domainnorm run {destination}")
    return 0


def _configure_docs(parser: Parser) -> None:
    text = "name of a page: docs/data.md#masks, or shorter, data (default: list all pages)"
    parser.add_argument("page", nargs="?", metavar="PAGE", help=text)


def _docs(arguments: Namespace) -> int:
    """Print a page of the documentation, from a heading on where one is named."""
    made = made_pages()
    written = recipe.list_pages()
    pages = [*written, *made]
    if arguments.page is None:
        titles = {
            name: file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
            for name, file in written.items()
        } | {name: title for name, (title, _) in made.items()}
        for name, title in titles.items():
            say(f"{name:<{max(map(len, pages))}}  {title}")
        return 0
    asked, _, place = arguments.page.removeprefix("docs/").partition("#")
    name = asked.removesuffix(".md")
    short = {page.rpartition("/")[2]: page for page in pages}  # methods/tent as tent
    name = name if name in pages else short.get(name, name)
    if name not in pages:
        raise RecipeError([unknown("page", name, pages)], where="domainnorm docs")
    text = made[name][1]() if name in made else written[name].read_text(encoding="utf-8")
    _print_markdown(_from_heading(text, place, name) if place else text)
    return 0


def _print_markdown(text: str) -> None:
    """Formatted on a terminal, as it is in a pipe."""
    if sys.stdout.isatty():
        # Deferred: as in `show`.
        from rich.markdown import Markdown  # noqa: PLC0415

        create_console().print(Markdown(_ANCHOR.sub("", text)))
    else:
        say(text.rstrip("\n"))


_ANCHOR = re.compile(r'<a id="([^"]+)"></a>\n')
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def _from_heading(text: str, place: str, page: str) -> str:
    """A page from one of its headings on, named by its anchor or by its words with hyphens."""
    starts = {match[1]: match.start() for match in _ANCHOR.finditer(text)}
    for match in _HEADING.finditer(text):
        words = re.sub(r"[^\w\s-]", "", match[1].lower())
        starts.setdefault(re.sub(r"\s", "-", words), match.start())
    if place not in starts:
        raise RecipeError([unknown("heading", place, starts)], where=f"domainnorm docs {page}")
    return text[starts[place] :]


COMMANDS = {
    "list": Command(
        "List recipes and their parts, methods, norms, datasets, tasks and more.",
        _configure_list,
        _list,
    ),
    "show": Command(
        "Show a complete recipe: its parts merged, every default filled in.",
        Parser.add_recipe,
        _show,
    ),
    "check": Command(
        "Check recipes without running them, and report all problems at once.",
        _configure_check,
        _check,
    ),
    "docs": Command("List the pages of the documentation, or print one.", _configure_docs, _docs),
    "copy": Command("Copy a shipped recipe into a file that you can edit.", _configure_copy, _copy),
}
