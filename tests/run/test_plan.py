import pytest

from domainnorm.methods import Roles
from domainnorm.recipe import Named
from domainnorm.run.plan import Stage, plan_stages, supervised_method
from tests.run.tiny import recipe

ADABN = Named("adabn", {})


def test_source_model_comes_first_and_the_oracle_last():
    stages = plan_stages(recipe("method=oracle", "compare=[tent, adabn]"))
    assert [stage.method.name for stage in stages] == ["source_only", "tent", "adabn", "oracle"]


def test_source_model_is_planned_once_when_it_is_asked_for():
    stages = plan_stages(recipe("method=adabn", "compare=[source_only]"))
    assert [stage.method.name for stage in stages] == ["source_only", "adabn"]


@pytest.mark.parametrize("words", ["method=joint compare=[]", "method=joint compare=[oracle]"])
def test_no_source_model_where_nothing_is_adapted(words):
    stages = plan_stages(recipe(*words.split()))
    assert "source_only" not in [stage.method.name for stage in stages]


def test_source_model_stands_beside_what_is_adapted():
    stages = plan_stages(recipe("method=restyle", "compare=[joint]", "augment.source=[FDA]"))
    assert [stage.method.name for stage in stages] == ["source_only", "joint", "restyle"]


def test_every_transfer_is_done_for_every_seed():
    words = ("seed=[3, 1]", "method=source_only", "compare=[]", "data.source=[]", "data.target=[]")
    transfers = "data.transfers=[{source: [clean], target: [textured]}, {source: [textured]}]"
    stages = plan_stages(recipe(*words, transfers))
    assert [stage.key for stage in stages] == [
        "stages/clean-to-textured/seed3/source_only",
        "stages/clean-to-textured/seed1/source_only",
        "stages/textured/seed3/source_only",
        "stages/textured/seed1/source_only",
    ]


def test_folders_of_many_sites_have_names_that_a_disk_takes():
    sites = tuple(f"hospital of the {number}th site, ü" for number in range(40))
    first, second = (Stage(Roles(sites[:n], ("b",)), 5, ADABN).key for n in (39, 40))
    assert first != second
    assert max(len(part.encode()) for part in first.split("/")) <= 160


@pytest.mark.parametrize(
    ("roles", "folder", "title"),
    [
        (Roles(("a",), ("b",)), "a-to-b", "a → b"),
        (Roles(("a", "b"), ("c", "d")), "a+b-to-c+d", "a + b → c + d"),
        (Roles(("a", "b")), "a+b", "a + b"),
    ],
)
def test_folder_and_title_name_the_transfer(roles, folder, title):
    stage = Stage(roles, 5, ADABN)
    assert stage.key == f"stages/{folder}/seed5/adabn"
    assert stage.source_key == f"stages/{folder}/seed5/source_only"
    assert stage.transfer == title


def test_method_under_two_names_is_two_stages():
    stages = plan_stages(recipe("method={name: adabn, as: again}", "compare=[adabn]"))
    assert [stage.label for stage in stages] == ["source_only", "adabn", "again"]
    assert stages[-1].key.endswith("/seed0/again")
    assert {stage.source_key for stage in stages} == {stages[0].key}


def test_source_model_of_another_name_lends_its_options():
    words = ("method=adabn", "compare=[{name: source_only, as: long, lr: 0.25}]")
    stages = plan_stages(recipe(*words))
    assert [stage.label for stage in stages] == ["long", "source_only", "adabn"]
    assert [stage.method.options.get("lr") for stage in stages[:2]] == [0.25, 0.25]


def test_supervised_options_come_from_the_method_itself():
    method = supervised_method(recipe("compare=[{name: oracle, lr: 0.5}]"), "oracle")
    assert method.options["lr"] == 0.5


def test_supervised_options_come_from_source_only_otherwise():
    method = supervised_method(recipe("compare=[{name: source_only, lr: 0.25}]"), "joint")
    assert method.name == "joint"
    assert method.options["lr"] == 0.25


def test_supervised_options_have_the_defaults_of_the_signature():
    method = supervised_method(recipe("compare=[]"), "source_only")
    assert method.options["lr"] == 1e-3
    assert method.options["optimizer"] == "adamw"
