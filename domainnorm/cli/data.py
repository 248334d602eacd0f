"""List the datasets, check one that is on disk, draw a sample, find domains without labels."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from domainnorm import data, recipe, report
from domainnorm.cli import domains
from domainnorm.cli.parser import Action, Parser, split_overrides
from domainnorm.cli.progress import reading_bar
from domainnorm.errors import DataError, RecipeError, counted, unknown
from domainnorm.recipe.problems import Problems
from domainnorm.recipe.sections import read_named
from domainnorm.recipe.tree import OVERRIDE
from domainnorm.registry import DATASETS, REQUIRED, Entry
from domainnorm.storage import make_folders

TASKS = ("classification", "segmentation", "multilabel")
_PLACE = "DATASET is a name of `domainnorm data list`"
ACTIONS = {
    "list": Action(
        f"List the datasets with their layouts, keys and pages; TASK is one of {', '.join(TASKS)}.",
        "[TASK]",
    ),
    "check": Action(
        f"Read a dataset and list all problems. {_PLACE}, ROOT its folder below DOMAINNORM_DATA or "
        "absolute, key=value one of its keys.",
        "DATASET [ROOT] [key=value], or RECIPE [key=value]",
    ),
    "sample": Action(
        f"Draw a small dataset in the layout of a dataset. {_PLACE}, FOLDER a new folder.",
        "DATASET FOLDER [seed=N]",
    ),
    "domains": Action(domains.SUMMARY, domains.FORM, domains.add_options),
}


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.add_actions(ACTIONS)


def execute(arguments: Namespace) -> int:
    """Carry out one of the actions; 1 when a check finds problems."""
    if arguments.action == "domains":
        return domains.execute(arguments)
    carry_out: dict[str, Callable[[list[str]], int]] = {
        "list": _list,
        "check": _check,
        "sample": _sample,
    }
    return carry_out[arguments.action](arguments.words)


def _list(words: list[str]) -> int:
    # Deferred: loading rich takes longer than everything else `domainnorm --help` does.
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    if len(words) > 1:
        raise _misused("list", words)
    if words and words[0] not in TASKS:
        raise RecipeError([unknown("task", words[0], TASKS)], "domainnorm data list")
    console = Console(highlight=False)
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
        name if parameter.default is REQUIRED else f"{name}={_yaml(parameter.default)}"
        for name, parameter in entry.parameters.items()
    )
    facts = {
        "layout": entry.constants.get("layout"),
        "keys": ", ".join(keys),
        "page": entry.constants.get("homepage"),
        "licence": entry.constants.get("licence"),
    }
    return "\n".join([entry.summary, *(f"{name}: {text}" for name, text in facts.items() if text)])


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=sys.maxsize, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("...").strip() or "''"


def _check(words: list[str]) -> int:
    names, overrides = split_overrides(words)
    if not names:
        raise _misused("check", words)
    known = [*DATASETS.names(), *recipe.list_shipped("recipes")]
    is_path = "/" in names[0] or Path(names[0]).suffix != ""
    if names[0] in DATASETS.names():
        named = _named(names, overrides)
    elif len(names) == 1 and (is_path or names[0] in known):
        named = _of_recipe(recipe.load_recipe(names[0], overrides))
    else:
        text = unknown("dataset or recipe", names[0], known)
        raise RecipeError([text], "domainnorm data check")
    entry, options = DATASETS.entry(named.name), named.options
    console = report.create_console()
    survey = data.survey_dataset(lambda: entry.load()(**options), progress=reading_bar(console))
    for table in report.survey_tables(survey):
        console.print(table)
    place = options.get("root", "")
    if survey.problems:
        number = len(survey.problems)
        print(f"{counted(number, 'problem')}  {named.name} {place}", file=sys.stderr)
        return 1
    print(f"ok  {named.name} {place}".rstrip())
    return 0


def _named(names: Sequence[str], overrides: Sequence[str]) -> recipe.Named:
    """A dataset with its keys, from the words of the command line."""
    where = "domainnorm data check"
    section: dict[str, Any] = {"name": names[0]}
    if len(names) > 2:
        raise _misused("check", names)
    if len(names) == 2:
        here = Path(names[1]).is_dir() and not (data.data_folder() / names[1]).is_dir()
        # Whoever types a path means what the shell completes.
        section["root"] = str(Path(names[1]).absolute()) if here else names[1]
    problems = Problems()
    for word in overrides:
        match = OVERRIDE.fullmatch(word)
        key, text = match.groups() if match else (word, "")
        try:
            section[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            problems.add(f"data.{key}", f"got '{text}', which is no YAML value")
    named = read_named(section, DATASETS, "data", problems)
    if problems or named is None:
        raise RecipeError(problems.lines, where)
    return named


def _of_recipe(loaded: recipe.Recipe) -> recipe.Named:
    """The dataset of a recipe, with the domains of its transfers."""
    name, options = loaded.dataset.name, dict(loaded.dataset.options)
    if "domains" in DATASETS.entry(name).parameters and options.get("domains") is None:
        used = [name for pair in loaded.transfers for name in (*pair.source, *pair.target)]
        options["domains"] = list(dict.fromkeys(used))
    return recipe.Named(name, options)


def _sample(words: list[str]) -> int:
    names, overrides = split_overrides(words)
    seed = next((word.removeprefix("seed=") for word in overrides), "0")
    known = all(word.startswith("seed=") for word in overrides)
    if len(names) != 2 or not known or not seed.isdecimal():
        raise _misused("sample", words)
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
    print(f"{folder}: a sample of {name}, drawn; domains {', '.join(domains)}")
    print(f"data: {_yaml({'name': name, 'root': str(folder.resolve())})}")
    return 0


def _misused(action: str, words: Sequence[str]) -> RecipeError:
    got = " ".join(words) or "nothing"
    return RecipeError([f"got {got}, expected {ACTIONS[action].form}"], f"domainnorm data {action}")
