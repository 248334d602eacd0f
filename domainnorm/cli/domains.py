"""The action ``domains`` of the command ``data``: images without domains become a manifest."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, Namespace
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from domainnorm import data, report
from domainnorm.cli.parser import Parser, split_overrides
from domainnorm.cli.progress import reading_bar
from domainnorm.data.problems import collecting
from domainnorm.errors import DataError, RecipeError
from domainnorm.registry import DATASETS
from domainnorm.storage import make_folders

SUMMARY = (
    "Find domains of images that nobody wrote down, by their style, and write them as a manifest. "
    "SOURCE is a folder with images or a table of them, whose columns may be named."
)
FORM = "SOURCE [columns={path: ...}], a folder or a table"
_WHERE = "domainnorm data domains"
_LEAK = "0 is chance, so the domains follow what the images show, not only how they look"
_ALLOWED = {"allow_missing_classes": True}
_CONTENT = "that is what they show, not how they look"
_MOST = 0.9
_WHITE = 65535


def add_options(parser: Parser) -> None:
    """Add the options of the action."""
    text = "manifest to write (%(default)s)"
    manifest = Path("manifest.csv")
    parser.add_argument("--output", type=Path, default=manifest, metavar="CSV", help=text)
    text = "how many to find; auto (default): as many as there are stable splits for, maybe one"
    parser.add_argument("--domains", type=_auto, metavar="K|auto", help=text)
    text = "most that auto finds (%(default)s)"
    parser.add_argument("--max-domains", type=_positive, default=8, metavar="K", help=text)
    text = "pixels of the shorter side that images are reduced to (%(default)s)"
    parser.add_argument("--size", type=_positive, default=96, metavar="PIXELS", help=text)
    text = "value of 16-bit files that is shown as white (%(default)s); 4095 for 12 bits"
    parser.add_argument("--white", type=_positive, default=_WHITE, metavar="VALUE", help=text)
    text = "of splits that are drawn, and of what is fitted (%(default)s)"
    parser.add_argument("--seed", type=_natural, default=0, metavar="N", help=text)
    text = "of a folder: the folder that an image lies in is its class"
    parser.add_argument("--classes", action="store_true", help=text)
    parser.add_argument("--force", action="store_true", help="overwrite the output")


def execute(arguments: Namespace) -> int:
    """Find domains, write the manifest and a sheet of typical images, say what was found.

    Raises:
        RecipeError: The words are wrong.
        DataError: There is no such source, or the output exists.
    """
    source, columns = _read_words(arguments.words)
    table: Path = arguments.output.absolute()
    sheet = table.with_suffix(".png")
    _check_output(table, sheet, Path(source), force=arguments.force)
    pile = data.open_pile(
        source, classes=arguments.classes, columns=columns, seed=arguments.seed, ignored=sheet
    )
    console = report.create_console()
    discovery = data.discover_domains(
        pile,
        arguments.domains,
        max_domains=arguments.max_domains,
        size=arguments.size,
        white=data.checked_white(arguments.white),
        seed=arguments.seed,
        progress=reading_bar(console),
    )
    make_folders(table.parent)
    report.save_found_domains(discovery, sheet)
    discovery.write(table)
    for found in report.found_tables(discovery):
        console.print(found)
    for line in _summary(discovery):
        print(line)
    print(f"{arguments.output}: written; look at {arguments.output.with_suffix('.png')} first")
    _print_usage(discovery, table, columns)
    return 0


def _read_words(words: Sequence[str]) -> tuple[str, dict[str, str]]:
    names, overrides = split_overrides(words)
    texts = [word.removeprefix("columns=") for word in overrides]
    known = all(word.startswith("columns=") for word in overrides)
    if len(names) != 1 or len(overrides) > 1 or not known:
        raise RecipeError([f"got {' '.join(words) or 'nothing'}, expected {FORM}"], _WHERE)
    try:
        columns: Any = yaml.safe_load(texts[0]) if texts else {}
    except yaml.YAMLError:
        columns = None
    if not isinstance(columns, dict) or not all(isinstance(v, str) for v in columns.values()):
        text = f"columns: got '{texts[0]}', expected names of columns, such as {{path: file}}"
        raise RecipeError([text], _WHERE)
    return names[0], columns


def _check_output(table: Path, sheet: Path, source: Path, *, force: bool) -> None:
    if table.suffix != ".csv":
        raise DataError(f"--output: '{table.name}', expected a name that ends with .csv")
    if table == source.absolute():
        raise DataError(f"--output: {table} is the table that is read; name another file")
    for file in (table, sheet):
        if file.exists() and not force:
            raise DataError(f"{file} exists; use --force to overwrite it")


def _summary(discovery: data.Discovery) -> list[str]:
    found = discovery.found
    lines = []
    if found.num_domains == 1:
        lines.append(
            f"one domain: the best split of the images has stability {found.stability[0]:.2f}, "
            "0.80 would be a domain of its own; there is nothing to condition on"
        )
    for column, meaning in (("domain", "1 is the same partition"), ("target", _LEAK)):
        index = discovery.agreement(column)
        if index is not None and (column == "domain" or index > 0.1):
            lines.append(f"adjusted Rand index with the column {column}: {index:.2f}; {meaning}")
    alone = _of_one_class(discovery)
    if alone:
        lines.append(f"nine in ten images of one class: {', '.join(alone)}; {_CONTENT}")
    return lines


def _of_one_class(discovery: data.Discovery) -> list[str]:
    """Domains that are a class, where there are classes that are none."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for domain, target in zip(discovery.domains, discovery.column("target"), strict=True):
        if target:
            classes[domain][target] += 1
    found = [
        f"{domain} ({top})"
        for domain, counts in sorted(classes.items())
        for top, number in counts.most_common(1)
        if number > _MOST * counts.total()
    ]
    return found if len(found) < len(classes) else []


def _print_usage(discovery: data.Discovery, table: Path, columns: dict[str, str]) -> None:
    """Say how a recipe reads the table, and what it would refuse."""
    pile, targets = discovery.pile, [text for text in discovery.column("target") if text]
    if not targets:
        print("no image has a target; the dataset manifest needs classes: fill the column")
        return
    name = "manifest_masks" if (pile.root / targets[0]).is_file() else "manifest"
    inside = table.is_relative_to(pile.root)
    place = str(table.relative_to(pile.root) if inside else table)
    options: dict[str, Any] = {"root": str(pile.root), "table": place}
    if columns:
        options["columns"] = columns
    if discovery.white != _WHITE:
        options["white"] = discovery.white
    _, problems = _made(name, options)
    if problems and name == "manifest":
        # Domains were not drawn by class, so that one may well lack some.
        allowing, others = _made(name, options | _ALLOWED)
        if allowing is not None and not others:
            print(_lacking(allowing))
            options, problems = options | _ALLOWED, []
    section = {"name": name, **options, "source": discovery.domain_names}
    print(f"data: {_one_line(section)}")
    for problem in problems:
        print(f"a run will refuse it: {problem}", file=sys.stderr)


def _one_line(section: dict[str, Any]) -> str:
    text = yaml.safe_dump(
        section, default_flow_style=True, sort_keys=False, allow_unicode=True, width=sys.maxsize
    )
    return text.removesuffix("\n")


def _made(name: str, options: dict[str, Any]) -> tuple[data.DomainDataset | None, list[str]]:
    """A dataset, as far as it can be made, and what is wrong with it."""
    with collecting() as problems:
        try:
            return DATASETS.load(name)(**options), problems
        except DataError as error:
            problems.append(str(error))
    return None, problems


def _lacking(dataset: data.DomainDataset) -> str:
    """How many classes have no training images in which domains."""
    trained: dict[str, set[int]] = {r.domain: set() for r in dataset.records if r.is_labelled}
    for record in dataset.records:
        if record.is_labelled and record.split == "train":
            trained[record.domain].add(record.target)
    total = len(dataset.class_names)
    counts = {name: total - len(trained[name]) for name in dataset.domain_names if name in trained}
    parts = [f"{name} {count}" for name, count in counts.items() if count]
    return f"of {total} classes without training images: {', '.join(parts)}"


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"got '{text}', expected a positive whole number")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"got '{text}', expected a whole number, 0 or more")
    return int(text)


def _auto(text: str) -> int | None:
    return None if text == "auto" else _positive(text)
