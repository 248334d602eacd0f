"""A recipe from a stranger can neither run code nor read the environment nor leave its folders."""

from __future__ import annotations

import re

import pytest

from domainnorm.errors import RecipeError
from domainnorm.recipe import load_recipe


@pytest.mark.parametrize("section", ["task", "method", "norm"])
@pytest.mark.parametrize("name", ["os.system", "torch.nn.Linear", "domainnorm.methods.tent.TENT"])
def test_dotted_class_path_is_refused(write, section, name):
    with pytest.raises(RecipeError, match=f"{section}: unknown .* '{name}'"):
        load_recipe(write(**{section: name}))


@pytest.mark.parametrize("key", ["_target_", "class_path"])
def test_keys_that_other_systems_instantiate_are_refused(write, key):
    with pytest.raises(RecipeError, match=f"method.{key}: unknown key"):
        load_recipe(write(method=f"{{name: source_only, {key}: os.system}}"))


@pytest.mark.parametrize(
    "text",
    ["${oc.env:HOME}", "x${oc.env:HOME,none}", "${custom:1}", "${a:${b}}", "${${a}}"],
)
def test_resolvers_are_refused_with_their_key(write, text):
    with pytest.raises(RecipeError, match=re.escape(f"checkpoint: got '{text}'; only ${{")):
        load_recipe(write(checkpoint=f'"{text}"'))


@pytest.mark.parametrize("text", ["${a${b}}", "${"])
def test_malformed_interpolations_are_refused_with_line_and_column(write, text):
    message = f"line 6, column 13: cannot read '{text}'; only ${{section.key}} is allowed"
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe(write(checkpoint=f'"{text}"'))


def test_resolver_in_an_override_is_refused(write):
    with pytest.raises(RecipeError, match=re.escape("checkpoint: got '${oc.env:HOME}'")):
        load_recipe(write(), ["checkpoint=${oc.env:HOME}"])


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system [ls]",
        "!!python/object/apply:pathlib.PosixPath [x]",
        "!!python/name:os.system",
        "!custom 3",
    ],
)
def test_yaml_tags_are_refused_with_line_and_column(write, tag):
    with pytest.raises(RecipeError, match=r"line 6, column 13: YAML tag '.*' is not read"):
        load_recipe(write(checkpoint=tag))


def test_yaml_tag_in_an_override_is_refused(write):
    with pytest.raises(RecipeError, match=r"checkpoint: got PosixPath.*, expected a plain value"):
        load_recipe(write(), ["checkpoint=!!python/object/apply:pathlib.PosixPath [x]"])


def test_yaml_aliases_are_refused(write):
    with pytest.raises(RecipeError, match="line 7, column 7: YAML aliases are not read"):
        load_recipe(write(checkpoint="&a x", seed="*a"))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "data/../../x", "a b"])
def test_parts_outside_the_config_folders_are_refused(write, name):
    with pytest.raises(RecipeError, match="expected a part name"):
        load_recipe(write(configs=f"[{name}]"))


def test_interpolation_that_holds_itself_is_refused(write):
    with pytest.raises(RecipeError, match=r"evaluation\.bins: Interpolation to parent node"):
        load_recipe(write(evaluation="{bins: '${evaluation}'}"))


def test_sections_that_hold_each_other_are_refused(write):
    sections = {"evaluation": "{bins: '${trainer}'}", "trainer": "{threads: '${evaluation}'}"}
    with pytest.raises(RecipeError, match=r"evaluation\.bins: refers to a section"):
        load_recipe(write(**sections))


def test_lists_that_hold_each_other_are_refused(write):
    data = "{name: scans, source: ['${data.target}'], target: ['${data.source}']}"
    with pytest.raises(RecipeError, match=r"data\.source\[0\]: refers to a section"):
        load_recipe(write(data=data))


def test_interpolations_in_a_circle_are_refused(write):
    with pytest.raises(RecipeError, match="checkpoint: Recursive interpolation detected"):
        load_recipe(write(checkpoint='"${checkpoint}"'))


def test_deep_nesting_is_refused(write):
    depth = 1500
    # The parser itself has a limit since PyYAML 6.0.4.
    message = "nested too deeply|line 6, column 1012: exceeded maximum nesting depth"
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(checkpoint="[" * depth + "]" * depth))


@pytest.mark.parametrize(
    "override",
    [r"data.image_size=\${seed}", r"data.corrupt=\${seed}", r"data.source=['\${seed}']"],
)
def test_an_escaped_interpolation_is_no_value(write, override):
    with pytest.raises(RecipeError, match=r"got '\$\{seed\}', expected a value, or \$\{section"):
        load_recipe(write(), [override])


def test_a_number_beyond_all_floats_is_refused(write):
    with pytest.raises(RecipeError, match=r"method\.lr: got 1000"):
        load_recipe(write(method=f"{{name: tent, lr: {10**400}}}"))
