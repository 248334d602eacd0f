"""What stands for domains that nobody tells."""

import pytest
import torch

from domainnorm.backbones import create_model
from domainnorm.errors import ConditionError
from domainnorm.serve.given_domains import DomainGiver, GivenDomain, check_told, policy_of
from tests.run.tiny import recipe

IMAGE = torch.rand(2, 3, 32, 32)
UNTOLD = torch.full((2,), -1)


def model_of(norm, *domains):
    return create_model("test_resnet", 4, norm, domains).eval()


@pytest.mark.parametrize(
    ("words", "policy"),
    [
        ((), "error"),
        (("unseen=nearest",), "nearest"),
        (("encoder=style", "unseen=mean"), "mean"),
        (("encoder=style", "condition=estimate"), "estimate"),
        (("encoder=style", "condition=id_or_estimate", "unseen=mean"), "estimate"),
        (("encoder=style", "condition=mixture", "unseen=mean"), "mixture"),
    ],
)
def test_policy_is_that_of_the_recipe(words, policy):
    asked, model = recipe(*words), model_of("dsbn", "day", "dusk")
    model.encoder = torch.nn.Identity() if asked.encoder else None
    assert policy_of(asked, model) == policy


def test_policy_that_the_norms_cannot_carry_out_is_refused():
    model = model_of({"all": "cin"}, "day", "dusk")
    with pytest.raises(ConditionError, match="unseen: 'nearest' compares the moments of dom"):
        policy_of(recipe(), model, "nearest")
    with pytest.raises(ConditionError, match="or add --unseen, one of mean \\(models"):
        check_told(model, "error", [""], "images")


@pytest.mark.parametrize(
    ("norm", "domains", "wanted"),
    [("dsbn", ["day"], GivenDomain("day", "only")), ("bn", ["day", "dusk"], GivenDomain())],
    ids=["one domain", "norms without domains"],
)
def test_models_to_which_it_is_all_the_same_need_no_domain(norm, domains, wanted):
    model = model_of(norm, *domains)
    policy = policy_of(recipe(), model)
    check_told(model, policy, ["", ""], "images")
    given, said = DomainGiver(model, policy)(IMAGE, UNTOLD, {})
    assert said == [wanted] * 2
    torch.testing.assert_close(model(IMAGE, **given), model(IMAGE, domains[-1]))


def test_norms_with_condition_dropout_do_without_a_domain():
    model = model_of({"name": "dsbn", "dropout": 0.2}, "day", "dusk")
    assert policy_of(recipe(), model) == "mean"


def test_told_images_keep_their_labels():
    giver = DomainGiver(model_of("dsbn", "day", "dusk"), "nearest")
    given, said = giver(IMAGE, torch.tensor([1, 0]), {})
    assert given["domain"].tolist() == [1, 0]
    assert said == [GivenDomain("dusk", "told"), GivenDomain("day", "told")]
