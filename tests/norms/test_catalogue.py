import re

import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, DomainNormError, UnknownNameError
from domainnorm.norms import CATALOGUE, create_norm
from domainnorm.registry import MODULATIONS, STATISTICS
from tests.norms.conditions import apply, make


@pytest.mark.parametrize("statistics", STATISTICS.names())
@pytest.mark.parametrize("modulation", MODULATIONS.names())
def test_every_pair_of_halves_can_be_spelled_out(statistics, modulation):
    name = f"{statistics}*{modulation}"
    norm, x = make(name, 4, 2), torch.randn(2, 4, 3, 3)
    assert apply(norm, name, x, torch.tensor([0, 1])).shape == (2, 4, 3, 3)


@pytest.mark.parametrize("name", ["cin", "dsbn", "tin", "cgn", "ibn_a", "cluster_in"])
def test_tokens_are_refused_where_statistics_are_over_pixels(name):
    with pytest.raises(DomainNormError, match=f"norm '{name}': .* there is no form for tokens"):
        create_norm(name, 32, tokens=True)


@pytest.mark.parametrize("modulation", ["style", "spatial"])
def test_tokens_are_refused_where_the_modulation_is_per_map(modulation):
    message = f"{modulation} modulation needs feature maps, not tokens"
    with pytest.raises(DomainNormError, match=message):
        create_norm(f"layer*{modulation}", 32, tokens=True)


@pytest.mark.parametrize("spec", CATALOGUE.values(), ids=str)
def test_every_row_of_the_catalogue_names_its_halves_paper_and_use(spec):
    assert spec.statistics in STATISTICS.names()
    assert spec.modulation in MODULATIONS.names()
    assert "arXiv:" in spec.paper
    assert spec.use


def test_unknown_norm_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown norm 'dsbm': did you mean 'dsbn'"):
        create_norm("dsbm", 4)


def test_unknown_option_is_answered_with_the_nearest():
    with pytest.raises(DomainNormError, match="unknown option 'momentun': did you mean 'momentum'"):
        create_norm("dsbn", 4, momentun=0.2)


WRONG = [
    ("dsbn", {"momentum": 5}, "momentum: got 5, expected a number in [0, 1], or null"),
    ("bn", {"momentum": -0.1}, "momentum: got -0.1, expected a number in [0, 1]"),
    ("cin", {"eps": -1.0}, "eps: got -1.0, expected 0 or more"),
    ("cln", {"eps": float("nan")}, "eps: got nan, expected 0 or more"),
    ("dsbn", {"stride": 1.5}, "stride: got 1.5, expected a whole number"),
    ("cluster_in", {"assignment": "sotf"}, "unknown value 'sotf': did you mean 'soft'"),
    ("mixed*shared", {"gate": "lerned"}, "unknown value 'lerned': did you mean 'learned'"),
    ("cluster_in", {"temperature": float("nan")}, "temperature: got nan, expected a positive"),
    ("cbn", {"dropout": 1.0}, "dropout: got 1.0, expected a probability in [0, 1)"),
    ("alpha_bn", {"alpha": 1.5}, "alpha: got 1.5, expected a number in [0, 1]"),
    ("film", {"hidden": 0}, "hidden: got 0, expected 1 or more"),
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG)
def test_value_that_an_option_cannot_have_is_refused(name, options, message):
    with pytest.raises(DomainNormError, match=re.escape(message)):
        create_norm(name, 4, 2, **options)


@pytest.mark.parametrize("sizes", [(0, 2), (4, 0)])
def test_norm_of_nothing_is_refused(sizes):
    with pytest.raises(DomainNormError, match=r"num_(features|domains): got 0, expected at least"):
        create_norm("dsbn", *sizes)


def test_options_reach_the_half_that_has_them():
    norm = create_norm("dsbn", 4, 2, momentum=0.3, eps=1e-3)
    assert (norm.statistics.momentum, norm.statistics.eps) == (0.3, 1e-3)


def test_layer_outside_a_condition_says_what_to_do():
    norm = create_norm("cin", 4, 2, path="layer1.0.bn1")
    with pytest.raises(ConditionError, match=r"layer1\.0\.bn1: no condition is set; call the"):
        norm(torch.randn(2, 4, 3, 3))


def test_rows_that_are_not_images_are_refused_with_the_path():
    norm = create_norm("cin", 4, 6, path="layer1.0.bn1")
    message = r"layer1\.0\.bn1: 1176 rows for 6 domain labels"
    condition = Condition(domain=torch.arange(6))
    with norm.slot.holding(condition), pytest.raises(ConditionError, match=message):
        norm(torch.randn(1176, 4))


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 1), (2, 4, 1, 1), (2, 4, 1, 1, 1)])
def test_instance_statistics_of_one_element_are_refused_with_the_path(shape):
    norm = create_norm("cin", 4, 2, path="blocks.0.se.bn")
    message = r"blocks\.0\.se\.bn: instance statistics of a map with one element per channel"
    condition = Condition(domain=torch.tensor([0, 1]))
    with norm.slot.holding(condition), pytest.raises(ConditionError, match=message):
        norm(torch.randn(shape))
