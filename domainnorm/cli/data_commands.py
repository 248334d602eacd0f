"""The command about data: datasets listed, checked and drawn, domains found without labels."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentTypeError, Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from domainnorm import data, recipe, report
from domainnorm.cli.parser import Action, Command, Parser
from domainnorm.data.refusals import attempted
from domainnorm.errors import DataError, RecipeError, counted, unknown
from domainnorm.recipe.problems import Problems
from domainnorm.recipe.sections import read_named
from domainnorm.recipe.tree import OVERRIDE, split_overrides
from domainnorm.registry import DATASETS, REQUIRED, Entry
from domainnorm.storage import make_folders
from domainnorm.terminal import create_console, say

TASKS = ("classification", "segmentation", "multilabel", "restoration")
_PLACE = "DATASET is a name of `domainnorm data list`"
_ALLOWED = {"allow_missing_classes": True}
_MOST = 0.9  # of the images of a domain, from which on it is a class
_WHITE = 65535


def _execute(arguments: Namespace) -> int:
    """Carry out one of the actions; 1 when a check finds problems."""
    carry_out = {"list": _list, "check": _check, "sample": _sample, "domains": _domains}
    return carry_out[arguments.action](arguments)


def _list(arguments: Namespace) -> int:
    # Deferred: loading rich takes longer than everything else `domainnorm --help` does.
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    words = arguments.words
    if len(words) > 1:
        raise _misused("list", words)
    if words and words[0] not in TASKS:
        raise RecipeError([unknown("task", words[0], TASKS)], "domainnorm data list")
    console = create_console()
    entries = [DATASETS.entry(name) for name in DATASETS.names()]
    for task in words or TASKS:
        table = Table(title=task, title_justify="left", show_header=False, show_lines=True)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for entry in entries:
            # One without a task has that of what it is made of, so it may be of any.
            if entry.constants.get("task") in (task, ""):
                table.add_row(entry.name, escape(_described(entry)))
        console.print(table)
        console.print()
    return 0


def _described(entry: Entry) -> str:
    """Summary, layout, keys, page and licence of a dataset, one line each."""
    keys = (
        name if parameter.default is REQUIRED else f"{name}={flow_yaml(parameter.default)}"
        for name, parameter in entry.parameters.items()
    )
    facts = {
        "layout": entry.constants.get("layout"),
        "keys": ", ".join(keys),
        "page": entry.constants.get("homepage"),
        "licence": entry.constants.get("licence"),
    }
    return "\n".join([entry.summary, *(f"{name}: {text}" for name, text in facts.items() if text)])


class _Dumper(yaml.SafeDumper):
    """Quotes what recipes would read as a number, such as ``1e3``, which PyYAML takes for text."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> Any:
    number = re.fullmatch(r"[-+]?[\d_.]+(e[-+]?\d+)?", text, re.IGNORECASE)
    style = "'" if number else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)


def flow_yaml(value: Any) -> str:
    """A value on one line, as a recipe has it."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        sort_keys=False,
        width=sys.maxsize,
        allow_unicode=True,
    )
    return text.removesuffix("\n").removesuffix("...").strip() or "''"


def _check(arguments: Namespace) -> int:
    names, overrides = split_overrides(arguments.words)
    if not names:
        raise _misused("check", arguments.words)
    known = [*DATASETS.names(), *recipe.list_shipped("recipes")]
    is_path = "/" in names[0] or Path(names[0]).suffix != ""
    read: recipe.Recipe | None = None
    if names[0] in DATASETS.names():
        named = _named(names, overrides)
    elif len(names) == 1 and (is_path or names[0] in known):
        read = recipe.load_recipe(names[0], overrides)
        named = read.read_dataset
    else:
        text = unknown("dataset or recipe", names[0], known)
        raise RecipeError([text], "domainnorm data check")
    entry, options = DATASETS.entry(named.name), named.options
    console = create_console()
    survey = data.survey_dataset(lambda: entry.load()(**options), progress=reading_bar(console))
    for table in report.survey_tables(survey):
        console.print(table)
    place = options.get("root", "")
    made = _problems_of_generated(read, survey.dataset)
    for problem in made:
        say(problem, error=True)
    if number := len(survey.problems) + len(made):
        say(f"{counted(number, 'problem')}  {named.name} {place}", error=True)
        return 1
    say(f"ok  {named.name} {place}".rstrip())
    return 0


def _problems_of_generated(
    read: recipe.Recipe | None, dataset: data.DomainDataset | None
) -> list[str]:
    """What is wrong with the generated images of a recipe, whose dataset could be read."""
    if read is None or read.data.generated is None or dataset is None:
        return []
    folder = Path(read.data.generated["root"]).expanduser()
    made, problems = attempted(lambda: data.WithGenerated(dataset, folder, read.domains))
    if made is not None:
        for position in made.generated(read.domains):
            problems += attempted(partial(made.image, position))[1]
    return problems


def _named(names: Sequence[str], overrides: Sequence[str]) -> recipe.Named:
    """A dataset with its keys, from the words of the command line."""
    section: dict[str, Any] = {"name": names[0]}
    if len(names) > 2:
        raise _misused("check", names)
    if len(names) == 2:
        here = Path(names[1]).is_dir() and not (data.data_folder() / names[1]).is_dir()
        # Whoever types a path means what the shell completes.
        section["root"] = str(Path(names[1]).absolute()) if here else names[1]
    section |= read_keys(overrides, "domainnorm data check")
    problems = Problems()
    named = read_named(section, DATASETS, "data", problems)
    if problems or named is None:
        raise RecipeError(problems.lines, "domainnorm data check")
    return named


def read_keys(overrides: Sequence[str], where: str) -> dict[str, Any]:
    """Keys of a dataset as words of the command line give them.

    Raises:
        RecipeError: A value is no YAML; the error is about the command ``where``.
    """
    keys: dict[str, Any] = {}
    problems = Problems()
    for word in overrides:
        match = OVERRIDE.fullmatch(word)
        key, text = match.groups() if match else (word, "")
        try:
            keys[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            problems.add(f"data.{key}", f"got '{text}', which is no YAML value")
    if problems:
        raise RecipeError(problems.lines, where)
    return keys


def _sample(arguments: Namespace) -> int:
    names, overrides = split_overrides(arguments.words)
    seed = next((word.removeprefix("seed=") for word in overrides), "0")
    known = all(word.startswith("seed=") for word in overrides)
    if len(names) != 2 or not known or not seed.isdecimal():
        raise _misused("sample", arguments.words)
    name, folder = names[0], Path(names[1])
    if name not in DATASETS.names():
        raise RecipeError([unknown("dataset", name, DATASETS.names())], "domainnorm data sample")
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder}: not empty; name a new folder")
    kind = DATASETS.load(name)
    if "root" not in DATASETS.entry(name).parameters:
        raise DataError(f"{name}: nothing to write; it has no folder of its own")
    make_folders(folder)
    kind.write_sample(folder, seed=int(seed))
    domains = kind(root=str(folder.resolve())).domain_names
    say(f"{folder}: a sample of {name}, drawn; domains {', '.join(domains)}")
    say(f"data: {flow_yaml({'name': name, 'root': str(folder.resolve())})}")
    return 0


def _misused(action: str, words: Sequence[str]) -> RecipeError:
    got = " ".join(words) or "nothing"
    return RecipeError([f"got {got}, expected {ACTIONS[action].form}"], f"domainnorm data {action}")


def reading_bar(console: Any) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    """Wraps readings in a bar that vanishes at their end; none where nobody looks."""
    # Deferred: loading rich takes longer than everything else `domainnorm --help` does.
    from rich.progress import track  # noqa: PLC0415

    def wrapped(readings: Iterable[Any], count: int) -> Iterable[Any]:
        disabled = not console.is_terminal
        return track(readings, "reading", count, console=console, transient=True, disable=disabled)

    return wrapped


def _add_domain_options(parser: Parser) -> None:
    text = "manifest to write (default: %(default)s)"
    manifest = Path("manifest.csv")
    parser.add_argument("--output", type=Path, default=manifest, metavar="CSV", help=text)
    text = "number of domains; auto (default): as many as the stable splits support, maybe one"
    parser.add_argument("--domains", type=_auto, metavar="K|auto", help=text)
    text = "largest number of domains for auto (default: %(default)s)"
    parser.add_argument("--max-domains", type=_positive, default=8, metavar="K", help=text)
    text = "shorter side of the reduced images, in pixels (default: %(default)s)"
    parser.add_argument("--size", type=_positive, default=96, metavar="PIXELS", help=text)
    text = "pixel value of 16-bit images that is white (default: %(default)s); 4095 for 12 bits"
    parser.add_argument("--white", type=_positive, default=_WHITE, metavar="VALUE", help=text)
    text = "seed of the drawn splits and of the clustering (default: %(default)s)"
    parser.add_argument("--seed", type=_natural, default=0, metavar="N", help=text)
    text = "take the name of an image's folder as its class"
    parser.add_argument("--classes", action="store_true", help=text)
    parser.add_argument("--force", action="store_true", help="overwrite the output")


def _domains(arguments: Namespace) -> int:
    """Find domains, write the manifest and a sheet of typical images, say what was found."""
    source, columns = _read_words(arguments.words)
    table: Path = arguments.output.absolute()
    sheet = table.with_suffix(".png")
    _check_output(table, sheet, Path(source), force=arguments.force)
    pile = data.open_pile(
        source, classes=arguments.classes, columns=columns, seed=arguments.seed, ignored=sheet
    )
    console = create_console()
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
        say(line)
    say(f"{arguments.output}: written; look at {arguments.output.with_suffix('.png')} first")
    _print_usage(discovery, table, columns)
    return 0


def _read_words(words: Sequence[str]) -> tuple[str, dict[str, str]]:
    names, overrides = split_overrides(words)
    texts = [word.removeprefix("columns=") for word in overrides]
    known = all(word.startswith("columns=") for word in overrides)
    if len(names) != 1 or len(overrides) > 1 or not known:
        raise _misused("domains", words)
    try:
        columns: Any = yaml.safe_load(texts[0]) if texts else {}
    except yaml.YAMLError:
        columns = None
    if not isinstance(columns, dict) or not all(isinstance(v, str) for v in columns.values()):
        text = f"columns: got '{texts[0]}', expected names of columns, such as {{path: file}}"
        raise RecipeError([text], "domainnorm data domains")
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
            f"one domain: the best split of the images has stability {found.stability[0]:.2f}; "
            "domains need 0.80 or more. There is nothing to condition on"
        )
    leak = "0 is chance, so these domains depend on the content of images, not only on their style"
    for column, meaning in (("domain", "1 is the same partition"), ("target", leak)):
        index = discovery.agreement(column)
        if index is not None and (column == "domain" or index > 0.1):
            lines.append(f"adjusted Rand index with the column {column}: {index:.2f}; {meaning}")
    if alone := _of_one_class(discovery):
        content = "these follow the content of images, not their style"
        lines.append(f"domains with over 90 % images of one class: {', '.join(alone)}; {content}")
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
        say("no image has a class; fill the column target, which the dataset manifest needs")
        return
    name = "manifest_masks" if (pile.root / targets[0]).is_file() else "manifest"
    inside = table.is_relative_to(pile.root)
    place = str(table.relative_to(pile.root) if inside else table)
    options: dict[str, Any] = {"root": str(pile.root), "table": place}
    if columns:
        options["columns"] = columns
    if discovery.white != _WHITE:
        options["white"] = discovery.white
    kind = DATASETS.load(name)
    _, problems = attempted(lambda: kind(**options))
    if problems and name == "manifest":
        # Domains were not drawn by class, so that one may well lack some.
        allowing, others = attempted(lambda: kind(**options, **_ALLOWED))
        if allowing is not None and not others:
            say(_lacking(allowing))
            options, problems = options | _ALLOWED, []
    say(f"data: {flow_yaml({'name': name, **options, 'source': discovery.domain_names})}")
    for problem in problems:
        say(f"a run will refuse it: {problem}", error=True)


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


ACTIONS = {
    "list": Action(
        f"List datasets with their layouts, keys and pages. TASK is one of {', '.join(TASKS)}.",
        "[TASK]",
    ),
    "check": Action(
        f"Read a dataset and list all problems. {_PLACE}. ROOT is its folder: an absolute path, or "
        "a path below DOMAINNORM_DATA. key=value sets a key of the dataset.",
        "DATASET [ROOT] [key=value], or RECIPE [key=value]",
    ),
    "sample": Action(
        f"Write a small synthetic dataset in the layout of DATASET. {_PLACE}. FOLDER is new.",
        "DATASET FOLDER [seed=N]",
    ),
    "domains": Action(
        "Find the domains of unlabelled images by their style, and write a manifest. SOURCE is a "
        "folder of images, or a table of images; columns= gives the names of its columns.",
        "SOURCE [columns={path: ...}], a folder or a table",
        _add_domain_options,
    ),
}
COMMANDS = {
    "data": Command(
        "List datasets, check one on disk, write a synthetic sample, find unlabelled domains.",
        lambda parser: parser.add_actions(ACTIONS),
        _execute,
    )
}
