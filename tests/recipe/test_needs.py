"""Methods that are certain to find nothing in the norms of a recipe."""

import pytest

from domainnorm.backbones import create_model
from domainnorm.errors import ConversionError, RecipeError
from domainnorm.methods import Roles
from domainnorm.methods.needs import NEEDS
from domainnorm.norms.catalogue import CATALOGUE
from domainnorm.recipe import check_needs, load_recipe
from domainnorm.recipe.norm import lacking
from domainnorm.recipe.registries import METHODS, MODULATIONS, STATISTICS
from domainnorm.tasks.classification import Classification

WITH_MORE = ("adain", "spade")
PLAIN = {"statistics": "domain", "modulation": "none"}


def problems(*words):
    with pytest.raises(RecipeError) as raised:
        check_needs(load_recipe("quickstart", list(words)))
    return raised.value.problems


def said(method, norm, **options):
    """What the method itself says of a network with such norms, empty where it works."""
    model = create_model(
        "test_resnet", num_classes=2, norm=norm, domains=["a", "b"], zero_init_last=False
    )
    try:
        METHODS.load(method)(model, Classification(["x", "y"]), Roles(("a",), ("b",)), **options)
    except ConversionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("norm", [name for name in CATALOGUE if name not in WITH_MORE])
def test_what_norms_lack_is_what_a_network_of_them_lacks(norm):
    groups = {"num_groups": 4} if CATALOGUE[norm].statistics == "group" else {}
    made = {"all": {"name": norm, **groups}}
    model = create_model("test_resnet", num_classes=2, norm=made, domains=["a", "b"])
    norms = list(model.norms())
    there = {
        "moments": any("running_mean" in n.statistics.state_dict() for n in norms),
        "rows": any(True for n in norms for _ in n.modulation.rows()),
        "weights": any(True for n in norms for _ in n.modulation.parameters()),
    }
    assert lacking({"all": norm}) == {name for name, found in there.items() if not found}
    assert lacking(norm) == lacking({"name": norm, "where": "early"}) == lacking({"early": norm})


def test_only_the_modulation_none_has_no_weights():
    modulations = [n for n in MODULATIONS.names() if not MODULATIONS.entry(n).constants["needs"]]
    without = [n for n in modulations if "weights" in lacking({**PLAIN, "modulation": n})]
    assert without == ["none"]


@pytest.mark.parametrize(
    "norm", [None, {"early": "in", "late": None}, {"early": "in", "late": "bn"}]
)
def test_nothing_is_certain_where_one_norm_may_have_it(norm):
    assert "moments" not in lacking(norm)


def test_norms_of_others_may_have_anything(monkeypatch):
    entry = STATISTICS.entry("instance")
    foreign = type(entry)(entry.kind, entry.name, "elsewhere.instance", entry.attribute)
    monkeypatch.setitem(STATISTICS._entries, "instance", foreign)
    assert lacking("in") == set()


def test_every_need_of_a_method_has_words():
    needs = {METHODS.entry(name).constants["needs"] for name in METHODS.names()}
    assert needs - {""} == NEEDS.keys()


def test_adabn_is_refused_in_its_own_words():
    (line,) = problems("norm=in")
    assert line == f"compare[1]: {said('adabn', {'all': 'in'})}"
    assert "norm 'dsbn' or 'cbn'" in line
    assert said("adabn", {"all": "cbn"}) == ""


def test_tent_is_refused_in_its_own_words():
    norm = "norm={statistics: domain, modulation: none}"
    assert problems(norm) == [f"method: {said('tent', {'all': PLAIN})}"]


def test_rows_and_parts_that_are_not_there_are_refused_in_the_same_words():
    (rows,) = problems("method={name: joint, rows_weight: 2}", "norm=bn")
    assert rows == said("joint", {"all": "bn"}, rows_weight=2.0)
    norm = "norm={statistics: domain, modulation: none}"
    (part,) = problems("method=finetune", "compare=[]", norm)
    assert part == said("finetune", {"all": PLAIN})


@pytest.mark.parametrize("norm", ["null", "dsbn", "cbn", "bn", "{early: cin, late: dsbn}"])
def test_good_runs_pass(norm):
    check_needs(load_recipe("quickstart", [f"norm={norm}"]))


def test_size_of_embeddings_is_checked_before_a_network_is_there():
    words = ["norm=film", "encoder={name: style, embedding: 8}", "condition=embedding"]
    with pytest.raises(RecipeError, match="encoder: its embeddings are of size 8, and the norms"):
        load_recipe("quickstart", words)
    words[0] = "norm={early: {name: film, embedding_size: 8}, late: bn}"
    load_recipe("quickstart", words)
