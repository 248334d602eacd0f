from __future__ import annotations

import pytest
import yaml

from domainnorm.errors import RecipeError
from domainnorm.recipe import DataConfig, Named, TrainerConfig, Transfer, load_recipe
from domainnorm.registry import PERTURBATIONS


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


PERTURBED = [
    (None, []),
    ("[]", []),
    ("mixstyle", ["mixstyle"]),
    ("{name: dsu, where: stage2, p: 0.2}", ["dsu"]),
    ("[{name: dsu, where: stem}, {name: mixstyle, where: [stage1, 'layer?.0']}]", ["dsu", "mixst"]),
]


@pytest.mark.parametrize(("text", "names"), PERTURBED)
def test_resolved_recipe_repeats_the_perturbations(write, tmp_path, text, names):
    recipe = load_recipe(write(perturb=text))
    assert [named.name[:5] for named in recipe.perturb] == [name[:5] for name in names]
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(str(again)) == recipe


@pytest.mark.parametrize("name", PERTURBATIONS.names())
def test_name_alone_stands_for_all_defaults_and_the_place_of_the_paper(write, name):
    shown = yaml.safe_load(load_recipe(write(perturb=name)).to_yaml())["perturb"]
    defaults = {key: item.default for key, item in PERTURBATIONS.entry(name).parameters.items()}
    assert shown == {"name": name, "where": None, **defaults}


def test_override_changes_one_key_of_a_perturbation_and_another_name_replaces_the_section(write):
    path = write(perturb="{name: mixstyle, alpha: 0.3}")
    assert load_recipe(path, ["perturb.p=0.2"]).perturb[0].options["alpha"] == 0.3
    assert load_recipe(path, ["perturb.p=0.2"]).perturb[0].options["p"] == 0.2
    assert load_recipe(path, ["perturb=dsu"]).perturb[0].name == "dsu"
    assert load_recipe(path, ["perturb=null"]).perturb == []


def test_unseen_domains_are_errors_unless_the_recipe_says_otherwise():
    assert load_recipe("quickstart").unseen == "error"
    assert load_recipe("quickstart", ["unseen=nearest"]).unseen == "nearest"


def test_policy_survives_the_resolved_recipe(tmp_path):
    recipe = load_recipe("quickstart", ["unseen=batch"])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load_recipe(str(tmp_path / "recipe.yaml")).unseen == "batch"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "unseen=maen",
            "unseen: got 'maen', expected 'error' or 'mean' or 'nearest' or 'batch'",
        ),
        ("unseen=[mean]", r"unseen: got \['mean'\], expected 'error' or"),
        ("unsen=mean", "unsen: unknown key 'unsen': did you mean 'unseen'"),
    ],
)
def test_unknown_policy_is_answered_with_the_choices(word, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("quickstart", [word])


def test_backbone_may_be_a_name_alone(write):
    assert load_recipe(write(backbone="resnet18")).backbone.name == "resnet18"


def test_another_backbone_keeps_the_rest_of_the_section(write):
    file = write(backbone="{name: resnet10t, pretrained: true}")
    backbone = load_recipe(file, ["backbone=resnet18"]).backbone
    assert (backbone.name, backbone.pretrained) == ("resnet18", True)
    file = write(backbone="resnet10t")
    assert load_recipe(file, ["backbone.pretrained=true"]).backbone.pretrained


def test_the_same_method_once_more_is_dropped(write):
    compared = load_recipe(
        write(compare="[adabn, source_only, adabn, {name: adabn, as: B}]")
    ).compare
    assert [named.label for named in compared] == ["adabn", "B"]
