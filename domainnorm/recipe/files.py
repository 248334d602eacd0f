"""Finds recipe files and their parts, and reads them as plain data."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

import domainnorm
from domainnorm.errors import RecipeError, unknown

PART_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
SUFFIXES = (".yaml", ".yml")


def shipped_folder(kind: str) -> Path:
    """The folder ``recipes`` or ``configs``: inside the wheel, or at the top of a checkout."""
    package = Path(domainnorm.__file__).resolve().parent
    packed = package / "_shipped" / kind
    return packed if packed.is_dir() else package.parent / kind


def list_shipped(kind: str) -> dict[str, str]:
    """Shipped names → first comment line of the file.

    Args:
        kind: ``recipes`` or ``configs``.
    """
    root = shipped_folder(kind)
    files = sorted(root.rglob("*.yaml"))
    return {_name(file, root): _summary(file) for file in files}


def find_recipe(reference: str) -> Path:
    """The file of a recipe, given as a path or as a shipped name.

    Raises:
        RecipeError: Neither a file nor a shipped name; the message gives the nearest name.
    """
    path = Path(reference)
    if path.suffix in SUFFIXES and path.is_file():
        return path
    name = reference.removesuffix(".yaml")
    shipped = list_shipped("recipes")
    if name in shipped:
        return shipped_folder("recipes") / f"{name}.yaml"
    problem = f"{unknown('recipe', name, shipped)}; or give the path of a .yaml file"
    raise RecipeError([problem], where=reference)


def recipe_name(file: Path) -> str:
    """Path below the shipped recipes without suffix; the stem of any other file."""
    root = shipped_folder("recipes")
    resolved = file.resolve()
    return _name(resolved, root) if resolved.is_relative_to(root) else file.stem


def find_part(name: str, beside: Path) -> Path | None:
    """The file of a part: ``configs/<name>.yaml`` beside the recipe, else the shipped one."""
    for folder in (beside / "configs", shipped_folder("configs")):
        file = folder / f"{name}.yaml"
        if file.is_file():
            return file
    return None


def read_yaml(file: Path) -> dict[str, Any]:
    """The content of a YAML file that holds one mapping; interpolations stay text.

    Tags could build objects and aliases could blow a small file up, so neither is read.

    Raises:
        RecipeError: The file cannot be read, with line and column where YAML knows them.
    """
    try:
        text = file.read_text(encoding="utf-8")
        _refuse_what_is_not_plain(text)
        content = OmegaConf.to_container(OmegaConf.load(StringIO(text)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RecipeError([f"{place}{error.problem or error.context}"], str(file)) from error
    except UnicodeDecodeError as error:
        text = f"not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        raise RecipeError([text], str(file)) from error
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise RecipeError([str(error).splitlines()[0]], str(file)) from error
    except RecursionError as error:
        raise RecipeError(["nested too deeply to be a recipe"], str(file)) from error
    if not isinstance(content, dict) or not content:
        what = "nothing" if not content else f"a {type(content).__name__}"
        raise RecipeError([f"got {what}, expected a mapping such as 'task: …'"], str(file))
    return {str(key): value for key, value in content.items()}


def _refuse_what_is_not_plain(text: str) -> None:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        problem = None
        if isinstance(event, yaml.AliasEvent):
            problem = "YAML aliases are not read in recipes; write ${section.key} instead"
        elif (tag := getattr(event, "tag", None)) is not None:
            problem = f"YAML tag '{tag}' is not read in recipes; write plain values"
        elif isinstance(event, yaml.ScalarEvent) and not _is_readable(event.value):
            problem = f"cannot read '{event.value}'; only ${{section.key}} is allowed"
        if problem:
            mark: Any = event.start_mark
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _is_readable(value: str) -> bool:
    """Whether OmegaConf can parse the interpolations of a text; its own error tells no line."""
    try:
        OmegaConf.create([value])
    except GrammarParseError:
        return False
    return True


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).with_suffix("").as_posix()


def _summary(file: Path) -> str:
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""
