from __future__ import annotations

import pytest

from domainnorm.recipe import DataConfig, Named, TrainerConfig, Transfer, load_recipe


def test_fixed_sections_left_out_take_their_defaults(write):
    assert load_recipe(write()).trainer == TrainerConfig()


def test_a_name_alone_takes_the_defaults_of_its_signature(write):
    recipe = load_recipe(write(data="{name: folder, root: a, source: [b]}"))
    assert recipe.dataset.options["splits"] == "splits.csv"


def test_data_section_is_split_into_fixed_keys_and_those_of_the_dataset(write):
    recipe = load_recipe(write(data="{name: folder, root: a, source: [b], batch_size: 3}"))
    assert recipe.data == DataConfig(source=["b"], batch_size=3)
    assert set(recipe.dataset.options) >= {"root", "splits"}
    assert "batch_size" not in recipe.dataset.options


def test_source_and_target_are_one_transfer(write):
    assert load_recipe(write()).transfers == [Transfer(["clean"], ["colour_cast"])]


def test_transfers_replace_source_and_target(write):
    both = "[{source: [a], target: [b]}, {source: [b], target: [a]}]"
    recipe = load_recipe(write(data=f"{{name: scans, transfers: {both}}}"))
    assert recipe.transfers == [Transfer(["a"], ["b"]), Transfer(["b"], ["a"])]


def test_one_seed_and_a_list_of_one_seed_are_the_same(write):
    assert load_recipe(write(seed="3")).seeds == load_recipe(write(seed="[3]")).seeds == [3]


def test_weights_imply_pretrained(write):
    recipe = load_recipe(write(backbone="{name: resnet10t, weights: a.safetensors}"))
    assert recipe.backbone.pretrained


def test_usual_comparison_leaves_out_the_method_itself(write):
    recipe = load_recipe(write(compare=None))
    assert [method.name for method in recipe.compare] == ["oracle"]


def test_a_method_may_stand_twice_under_two_names(write):
    recipe = load_recipe(
        write(
            method="tent", compare="[{name: tent, as: tent_low, lr: 1e-5}, {name: adabn, as: bn}]"
        )
    )
    methods = [recipe.method, *recipe.compare]
    assert [one.label for one in methods] == ["tent", "tent_low", "bn"]
    assert [one.name for one in methods] == ["tent", "tent", "adabn"]
    assert "as" not in recipe.compare[0].options


def test_resolved_recipe_keeps_the_names_of_methods(write, tmp_path):
    recipe = load_recipe(write(method="{name: tent, as: mine}", compare="[tent]"))
    file = tmp_path / "resolved.yaml"
    file.write_text(recipe.to_yaml())
    assert load_recipe(str(file)) == recipe


def test_method_called_by_its_own_name_has_no_other(write):
    assert load_recipe(write(method="{name: tent, as: tent}")).method.alias == ""


def test_usual_comparison_without_target_has_no_oracle(write):
    data = "{name: scans, source: [clean]}"
    assert load_recipe(write(compare=None, data=data)).compare == []


def test_numeric_domain_names_are_read_as_text(write):
    assert load_recipe(write(data="{name: scans, source: [1]}")).data.source == ["1"]


@pytest.mark.parametrize("text", ["1e-1", "'1e-1'", "0.1", ".1"])
def test_numbers_may_be_written_as_yaml_users_expect(write, text):
    data = f"{{name: folder, root: a, source: [b], val_fraction: {text}}}"
    assert load_recipe(write(data=data)).dataset.options["val_fraction"] == pytest.approx(0.1)


def test_interpolation_takes_the_value_of_another_key(write):
    recipe = load_recipe(write(data='{name: scans, source: [a], batch_size: "${seed}"}', seed="7"))
    assert recipe.data.batch_size == 7


def test_interpolation_takes_a_list(write):
    data = "{name: scans, source: [a], domains: '${data.source}'}"
    assert load_recipe(write(data=data)).dataset.options["domains"] == ["a"]


@pytest.mark.parametrize(
    "norm",
    [
        "null",
        "dsbn",
        "{name: cin, where: all}",
        "{name: cin, where: [stem, 'blocks.0.*'], eps: 1e-3}",
        "{statistics: instance, modulation: table, where: early}",
        "{early: cin, late: {name: dsbn, momentum: 0.2}}",
        "{'layer1.*': cin}",
    ],
)
def test_recipe_of_every_norm_form_reads_back_equal(write, tmp_path, norm):
    recipe = load_recipe(write(norm=norm))
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe.to_yaml())
    assert load_recipe(str(copy)) == recipe


def test_text_that_looks_like_a_number_reads_back_as_text(write, tmp_path):
    recipe = load_recipe(write(checkpoint="'1e-3'"))
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe.to_yaml())
    assert load_recipe(str(copy)).checkpoint == "1e-3"


def test_name_does_not_make_recipes_differ(write, tmp_path):
    path = write()
    other = tmp_path / "other.yaml"
    other.write_text((tmp_path / "recipe.yaml").read_text())
    assert load_recipe(path) == load_recipe(str(other))


def test_named_section_as_mapping_equals_the_name_alone(write):
    recipe = load_recipe(write(method="{name: source_only}"))
    assert recipe.method == load_recipe(write(method="source_only")).method
    assert isinstance(recipe.method, Named)
