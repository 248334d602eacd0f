import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, DomainNormError
from domainnorm.norms import create_norm
from tests.norms.modulations.conditions import SHAPES, N, apply, double, make


def test_embedding_alone_serves_without_any_domain():
    norm, x = make("hyper"), double(*SHAPES[2])
    assert apply(norm, x, Condition(embedding=double(N, 16))).shape == x.shape


def test_embedding_of_a_domain_given_as_embedding_equals_its_label():
    norm, x = make("hyper"), double(*SHAPES[2])
    own = norm.modulation.domain_embedding[2].detach().expand(N, -1)
    wanted = apply(norm, x, Condition(domain=torch.full((N,), 2)))
    torch.testing.assert_close(apply(norm, x, Condition(embedding=own)), wanted)


def test_gradient_reaches_the_embedding():
    norm = make("hyper")
    embedding = double(N, 16).requires_grad_()
    apply(norm, double(*SHAPES[2]), Condition(embedding=embedding)).square().sum().backward()
    assert embedding.grad.abs().sum() > 0


def test_missing_embedding_and_domain_say_what_to_pass():
    message = (
        "layer: hyper modulation needs an embedding or the domain of each sample; pass embedding=, "
        "domain= or weights="
    )
    with pytest.raises(ConditionError, match=message):
        apply(make("hyper"), double(*SHAPES[2]), Condition())


def test_embedding_of_another_size_names_the_option():
    message = (
        "layer: embedding has 8 values per sample, expected 16; set the norm's option "
        "embedding_size"
    )
    with pytest.raises(ConditionError, match=message):
        apply(make("hyper"), double(*SHAPES[2]), Condition(embedding=double(N, 8)))


@pytest.mark.parametrize("option", ["embedding_size", "hidden"])
def test_sizes_below_one_are_refused(option):
    with pytest.raises(DomainNormError, match=f"{option}: got 0, expected 1 or more"):
        create_norm("film", 8, 3, **{option: 0})
