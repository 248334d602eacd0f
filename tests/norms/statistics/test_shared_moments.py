import pytest
import torch

from domainnorm import create_model, fold_domain
from domainnorm.errors import DomainNormError
from domainnorm.norms import create_norm
from tests.norms.conditions import DOMAIN, apply, assert_equals_reference, make

SHAPE = (7, 6, 4, 3)
EQUAL = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0, "unlike"])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_values_and_gradients_equal_the_reference(share, mean):
    norm = make("dsbn", 6, dtype=torch.float64, share=share)
    x = torch.randn(SHAPE, dtype=torch.float64) + mean + DOMAIN[:, None, None, None]
    assert_equals_reference(norm, "dsbn", x)


@pytest.mark.parametrize(("share", "other"), [(1.0, "dsbn"), (0.0, "bn")])
def test_ends_are_the_norms_between_which_it_lies(share, other):
    """With equally many images of each domain those of all count the same as in batch norm."""
    x = torch.randn(6, 4, 5, 5) * 2 + EQUAL[:, None, None, None]
    norm, wanted = create_norm("dsbn", 4, 3, share=share), create_norm(other, 4, 3)
    torch.testing.assert_close(apply(norm, "", x, EQUAL), apply(wanted, "", x, EQUAL))
    mean = wanted.statistics.running_mean.expand(3, -1)
    torch.testing.assert_close(norm.statistics.running_mean, mean)


@pytest.mark.parametrize(("apart", "least", "most"), [(0.0, 0.0, 0.05), (20.0, 0.95, 1.0)])
def test_share_follows_how_unlike_the_domains_are(apart, least, most):
    x = torch.randn(6, 4, 32, 32)
    x[EQUAL == 1] += apart
    norm = create_norm("auto_bn", 4, 2)
    own = x[EQUAL == 1].mean((0, 2, 3)), x[EQUAL != 1].mean((0, 2, 3))
    apply(norm, "", x, (EQUAL == 1).long())
    found = 10 * norm.statistics.running_mean  # one step from zero, momentum 0.1
    share = (found[1] - found[0]) / (own[0] - own[1])
    assert least <= share.min() <= share.max() <= most


def test_a_channel_shares_for_itself():
    x = torch.randn(6, 2, 16, 16)
    x[EQUAL == 1, 0] += 30
    norm, domain = create_norm("auto_bn", 2, 2), (EQUAL == 1).long()
    output = apply(norm, "", x, domain)
    alone = apply(create_norm("auto_bn", 1, 2), "", x[:, :1], domain)
    torch.testing.assert_close(output[:, :1], alone)


def test_a_domain_alone_in_its_batch_has_its_own_moments():
    x, only = torch.randn(6, 4, 5, 5) + 3, torch.ones(6, dtype=torch.long)
    norm, wanted = create_norm("auto_bn", 4, 3), create_norm("dsbn", 4, 3)
    torch.testing.assert_close(apply(norm, "", x, only), apply(wanted, "", x, only))
    for name, value in wanted.statistics.named_buffers():
        torch.testing.assert_close(norm.statistics.get_buffer(name), value)


def test_a_single_value_has_the_running_moments():
    norm, x = create_norm("dsbn", 4, 2, share=0.5), torch.randn(3, 4)
    norm.statistics.running_mean.normal_(), norm.statistics.running_var.uniform_(1, 2)
    before = {name: value.clone() for name, value in norm.statistics.named_buffers()}
    output = apply(norm, "dsbn", x, torch.tensor([0, 1, 0]))
    (m0, v0), (m1, v1) = (
        (x[[0, 2]].mean(0), x[[0, 2]].var(0, unbiased=False)),
        (before["running_mean"][1], before["running_var"][1]),
    )
    mean = 0.25 * m0 + 0.75 * m1
    var = 0.25 * (v0 + (m0 - mean) ** 2) + 0.75 * (v1 + (m1 - mean) ** 2)
    torch.testing.assert_close(output[1], (x[1] - mean) / (var + norm.statistics.eps).sqrt())
    for name, value in norm.statistics.named_buffers():
        assert torch.equal(value[1], before[name][1])


def test_shares_that_are_none_are_refused():
    with pytest.raises(DomainNormError, match=r"share: got 1\.5, expected a share in"):
        create_norm("dsbn", 4, 2, share=1.5)


def test_a_domain_folds_to_the_plain_network():
    model = create_model(
        "test_resnet", num_classes=3, norm={"name": "dsbn", "share": "unlike"}, domains=["a", "b"]
    )
    images = torch.randn(6, 3, 32, 32)
    images[3:] = images[3:] * 2 + 1
    domain = torch.tensor([0, 0, 0, 1, 1, 1])
    model.train()(images, domain=domain)
    model.eval()
    plain = fold_domain(model, "b")
    torch.testing.assert_close(plain(images), model(images, domain=torch.ones(6).long()))
