"""Makes one tree of a recipe, its parts and the overrides, then resolves interpolations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from domainnorm.errors import unknown
from domainnorm.recipe.files import PART_NAME, find_part, list_shipped, read_yaml
from domainnorm.recipe.overrides import NAMED_SECTIONS, OVERRIDE, apply_override
from domainnorm.recipe.problems import Problems, spelled

_REFERENCE = re.compile(r"\$\{[A-Za-z_][\w-]*(\.[\w-]+)*\}")


def merged_tree(file: Path, overrides: Sequence[str], problems: Problems) -> dict[str, Any]:
    """Parts left to right, then the recipe's own keys, then the overrides.

    Raises:
        RecipeError: A file that is not YAML.
    """
    own = read_yaml(file)
    pairs = _parsed(overrides, problems)
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
        problems.add("configs", f"got {spelled(names)}, expected a list of part names")
        return []
    good = []
    for index, name in enumerate(names):
        if isinstance(name, str) and PART_NAME.fullmatch(name.removesuffix(".yaml")):
            good.append((index, name.removesuffix(".yaml")))
        else:
            text = f"got {spelled(name)}, expected a part name such as 'trainer/cpu'"
            problems.add(f"configs[{index}]", text)
    return good


def _parsed(overrides: Sequence[str], problems: Problems) -> list[tuple[str, Any]]:
    pairs = []
    for text in overrides:
        match = OVERRIDE.fullmatch(text)
        if match is None:
            problems.add(f"override '{text}'", "expected key=value, such as method.lr=1e-3")
            continue
        try:
            loaded = OmegaConf.load(StringIO(f"value: {match[2]}\n"))
            pairs.append((match[1], OmegaConf.to_container(loaded)["value"]))  # type: ignore[call-overload, index]
        except (yaml.YAMLError, OmegaConfBaseException, KeyError):
            problems.add(f"override '{text}'", f"cannot read '{match[2]}' as a YAML value")
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
        problems.add(key, f"got {spelled(value)}, expected a plain value")
        return None
    return value


def _resolve(node: Any, key: str, problems: Problems) -> Any:
    if isinstance(node, DictConfig):
        return {str(name): _item(node, name, _below(key, name), problems) for name in node}
    if isinstance(node, ListConfig):
        return [_item(node, index, f"{key}[{index}]", problems) for index in range(len(node))]
    return node


def _item(node: Any, name: Any, key: str, problems: Problems) -> Any:
    try:
        value = node[name]
    except OmegaConfBaseException as error:
        problems.add(key, str(error).splitlines()[0])
        return None
    if OmegaConf.is_interpolation(node, name) and not _is_plain(value):
        problems.add(key, "stands for a section; only a plain value or a list of them may be taken")
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
