"""Tree of a recipe: files and parts found, read as plain data, merged, overridden, resolved."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

import domainnorm
from domainnorm.errors import RecipeError, nearest, unknown
from domainnorm.recipe.problems import Problems, spelled

PART_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
SUFFIXES = (".yaml", ".yml")
OVERRIDE = re.compile(r"([A-Za-z_][\w-]*(?:\.[\w-]+)*)=(.*)", re.DOTALL)
NAMED_SECTIONS = ("task", "method", "norm", "perturb", "encoder")
_DEEPEST = 50  # mappings and lists within each other
_SHOWN = 200  # letters of a word that is wrong
_REFERENCE = re.compile(r"\$\{[A-Za-z_][\w-]*(\.[\w-]+)*\}")


def shipped_folder(kind: str) -> Path:
    """``recipes``, ``configs`` or ``docs``: inside the wheel, or at the top of a checkout."""
    package = Path(domainnorm.__file__).resolve().parent
    packed = package / "_shipped" / kind
    return packed if packed.is_dir() else package.parent / kind


def list_shipped(kind: str) -> dict[str, str]:
    """Shipped names, of ``recipes`` or ``configs``, → first comment line of the file."""
    root = shipped_folder(kind)
    files = sorted(root.rglob("*.yaml"))
    return {_name(file, root): _summary(file) for file in files}


def find_recipe(reference: str) -> Path:
    """The file of a recipe, given as a path or as a shipped name.

    Raises:
        RecipeError: Neither a file nor a shipped name; the message gives the nearest name.
    """
    path = Path(reference)
    if path.suffix in SUFFIXES and _is_file(path):
        return path
    name = reference.removesuffix(".yaml")
    shipped = list_shipped("recipes")
    if name in shipped:
        return shipped_folder("recipes") / f"{name}.yaml"
    problem = f"{unknown('recipe', name, shipped)}; or give the path of a .yaml file"
    if path.suffix in SUFFIXES:
        beside = (file.name for file in _files_in(path.parent) if file.suffix in SUFFIXES)
        near = nearest(path.name, beside)
        hint = f" (did you mean '{path.with_name(near)}'?)" if near else ""
        problem = f"no such file{hint}, and {problem}"
    raise RecipeError([problem], where=reference)


def list_pages() -> dict[str, Path]:
    """Names of the pages of the documentation, such as ``methods/default``, → their files."""
    root = shipped_folder("docs")
    return {_name(file, root): file for file in sorted(root.rglob("*.md"))}


def _is_file(path: Path) -> bool:
    """Whether there is such a file; not under a name that no file can have."""
    try:
        return path.is_file()
    except OSError:  # too long
        return False


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(filter(Path.is_file, folder.iterdir()))
    except OSError:  # there is none
        return []


def recipe_name(file: Path) -> str:
    """Path below the shipped recipes without suffix; the stem of any other file."""
    root = shipped_folder("recipes")
    resolved = file.resolve()
    return _name(resolved, root) if resolved.is_relative_to(root) else file.stem


def find_part(name: str, beside: Path) -> Path | None:
    """The file of a part: ``configs/<name>.yaml`` beside the recipe, else the shipped one."""
    for folder in (beside / "configs", shipped_folder("configs")):
        file = folder / f"{name}.yaml"
        if _is_file(file):
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


def _events(text: str) -> Iterator[Any]:
    """Events of a YAML text, one nested too deeply refused before reading it takes minutes."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            mark: Any = event.start_mark
            problem = "nested too deeply to be a recipe"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        yield event


def _refuse_what_is_not_plain(text: str) -> None:
    for event in _events(text):
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
        if "${" in value:
            OmegaConf.create([value])
    except GrammarParseError:
        return False
    return True


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).with_suffix("").as_posix()


def _summary(file: Path) -> str:
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def merged_tree(file: Path, overrides: Sequence[str], problems: Problems) -> dict[str, Any]:
    """Parts left to right, then the recipe's own keys, then the overrides.

    Raises:
        RecipeError: A file that is not YAML.
    """
    own = read_yaml(file)
    pairs = parse_overrides(overrides, problems)
    names = own.pop("configs", None)
    for key, value in pairs:
        names = value if key == "configs" else names
    tree: dict[str, Any] = {}
    for index, name in _part_names(names, problems):
        part = find_part(name, file.parent)
        if part is None:
            problems.add(f"configs[{index}]", unknown("part", name, list_shipped("configs")))
            continue
        content = read_yaml(part)
        if content.pop("configs", None) is not None:
            problems.add(f"configs[{index}]", f"'{name}' names parts; only a recipe may do so")
        tree = _merge(tree, content)
    tree = _merge(tree, own)
    for key, value in pairs:
        if key != "configs":
            apply_override(tree, key, value, problems)
    return tree


def resolved_tree(tree: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """The tree with every ``${section.key}`` replaced by what it stands for.

    Anything else behind ``${`` is refused: resolvers read the environment or run code. A refused
    value becomes None.
    """
    node = OmegaConf.create(_without_resolvers(tree, "", problems))
    return {str(name): _item(node, name, str(name), problems) for name in node}


def _merge(base: Mapping[str, Any], new: Mapping[str, Any], level: int = 0) -> dict[str, Any]:
    result = dict(base)
    for key, value in new.items():
        old = result.get(key)
        if level == 0 and key in NAMED_SECTIONS and _replaces(key, old, value):
            result[key] = value
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = _merge(old, value, level + 1)
        else:
            result[key] = value
    return result


def _replaces(key: str, old: Any, new: Any) -> bool:
    """Whether a section is stated anew: options of one name mean nothing to another."""
    if key == "norm" or not isinstance(new, Mapping) or not isinstance(old, Mapping):
        return True
    return "name" in new and new["name"] != old.get("name")


def _part_names(names: Any, problems: Problems) -> list[tuple[int, str]]:
    if names is None:
        return []
    if not isinstance(names, list):
        problems.expect("configs", names, "a list of part names")
        return []
    good = []
    for index, name in enumerate(names):
        if isinstance(name, str) and PART_NAME.fullmatch(name.removesuffix(".yaml")):
            good.append((index, name.removesuffix(".yaml")))
        else:
            problems.expect(f"configs[{index}]", name, "a part name such as 'trainer/cpu'")
    return good


def parse_overrides(overrides: Sequence[str], problems: Problems) -> list[tuple[str, Any]]:
    """Dotted keys and values of ``key=value`` words; what cannot be read is a problem."""
    pairs = []
    for text in overrides:
        match = OVERRIDE.fullmatch(text)
        if match is None:
            problems.add(f"override '{text}'", "expected key=value, such as method.lr=1e-3")
            continue
        try:
            given = f"value: {match[2]}\n"
            deque(_events(given), maxlen=0)
            loaded = OmegaConf.load(StringIO(given))
            pairs.append((match[1], OmegaConf.to_container(loaded)["value"]))  # type: ignore[call-overload, index]
        except (yaml.YAMLError, OmegaConfBaseException, KeyError):
            shown = [one if len(one) <= _SHOWN else f"{one[:_SHOWN]}…" for one in (text, match[2])]
            problems.add(f"override '{shown[0]}'", f"cannot read '{shown[1]}' as a YAML value")
    return pairs


def _without_resolvers(value: Any, key: str, problems: Problems) -> Any:
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                text = "keys are text; put it in quotes"
                problems.add(_below(key, name), f"got the key {spelled(name)}, {text}")
        return {
            str(name): _without_resolvers(item, _below(key, name), problems)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [
            _without_resolvers(item, f"{key}[{index}]", problems)
            for index, item in enumerate(value)
        ]
    if isinstance(value, str) and "${" in _REFERENCE.sub("", value):
        text = "only ${section.key} is allowed; resolvers such as ${oc.env:X} are not"
        problems.add(key, f"got {spelled(value)}; {text}")
        return None
    if value is not None and not isinstance(value, (str, int, float, bool)):
        problems.expect(key, value, "a plain value")
        return None
    return value


def _resolve(node: Any, key: str, problems: Problems) -> Any:
    if isinstance(node, DictConfig):
        return {str(name): _item(node, name, _below(key, name), problems) for name in node}
    if isinstance(node, ListConfig):
        return [_item(node, index, f"{key}[{index}]", problems) for index in range(len(node))]
    if isinstance(node, str) and "${" in node:
        # Escaped with a backslash; a typed field would take it for a number to come.
        problems.expect(key, node, "a value, or ${section.key}; no text has '${' in it")
        return None
    return node


def _item(node: Any, name: Any, key: str, problems: Problems) -> Any:
    try:
        value = node[name]
    except OmegaConfBaseException as error:
        problems.add(key, str(error).splitlines()[0])
        return None
    if OmegaConf.is_interpolation(node, name) and not _is_plain(value):
        problems.add(key, "refers to a section, expected a plain value or a list of plain values")
        return None
    return _resolve(value, key, problems)


def _is_plain(value: Any) -> bool:
    """Whether a value holds no further node; sections could hold each other without end."""
    if not isinstance(value, ListConfig):
        return not isinstance(value, DictConfig)
    return not any(
        OmegaConf.is_interpolation(value, index) or OmegaConf.is_config(value[index])
        for index in range(len(value))
    )


def _below(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def apply_override(tree: dict[str, Any], key: str, value: Any, problems: Problems) -> None:
    """Set one dotted key of ``tree``; a section given as a name becomes a mapping first.

    The name of another network leaves the rest of the section, such as ``pretrained``.
    """
    if key == "backbone" and isinstance(value, str) and isinstance(tree.get(key), Mapping):
        key = "backbone.name"
    *parents, last = key.split(".")
    section = tree
    for depth, name in enumerate(parents):
        inner = section.get(name)
        if depth == 0 and name in (*NAMED_SECTIONS, "backbone") and isinstance(inner, str):
            inner = {"name": inner}
        elif inner is None:
            inner = {}
        elif not isinstance(inner, Mapping):
            where = ".".join(parents[: depth + 1])
            text = f"cannot set '{key}' inside {spelled(inner)}; give {where}=… as a whole"
            problems.add(where, text)
            return
        section[name] = dict(inner)
        section = section[name]
    section[last] = value


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Recipes and ``key=value`` overrides of one command line.

    ``data.target[0]=a`` is no override, but no recipe either, and answered as the former.
    """
    overrides = [
        word
        for word in words
        if OVERRIDE.fullmatch(word) or ("=" in word and not _is_file(Path(word)))
    ]
    return [word for word in words if word not in overrides], overrides
