"""What every encoder promises."""

import copy

import pytest
import timm
import torch
from torch.testing import assert_close

from domainnorm.backbones import create_model
from domainnorm.encoders import create_encoder, extend_encoder, fit_encoder, list_encoders
from domainnorm.errors import ConditionError, DomainNormError, UnknownNameError
from domainnorm.registry import ENCODERS
from tests.encoders.pairs import images, mixed, pairs, read_by, rows, together


def make(name, num_domains, **options):
    """An encoder for a small network with norms of domains."""
    domains = [f"domain{n}" for n in range(num_domains)]
    model = create_model("test_resnet", num_classes=3, norm="dsbn", domains=domains)
    return create_encoder(name, num_domains, model.eval().backbone, **options)


def pairs_for(encoder, domains):
    made = pairs(domains, make=read_by(encoder))
    return mixed(made) if encoder.learns_features else made


PIXELS = [
    name for name in list_encoders() if not ENCODERS.entry(name).constants["reads_attributes"]
]
every_encoder = pytest.mark.parametrize("name", list_encoders())


@pytest.fixture(scope="module", params=list_encoders())
def fitted(request):
    torch.manual_seed(0)
    encoder = make(request.param, 3)
    fit_encoder(encoder, pairs_for(encoder, [0, 1]), pairs_for(encoder, [0, 1]), epochs=4)
    return encoder


@pytest.fixture
def given(fitted):
    """Makes what the fitted encoder reads, of a domain and a number of images."""
    return read_by(fitted)


def test_known_domains_are_told_apart(fitted, given):
    for domain in (0, 1):
        assert (fitted(given(domain, 8)).domain == domain).all()


def test_weights_sum_to_one_and_leave_out_domains_without_images(fitted, given):
    estimate = fitted(given(1, 5))
    assert estimate.embedding.shape[0] == 5
    assert_close(estimate.weights.sum(1), torch.ones(5))
    assert (estimate.weights[:, 2] == 0).all()


def test_new_domain_is_learned_from_its_images_alone(fitted, given):
    encoder = copy.deepcopy(fitted)
    before = encoder(given(0, 4)).distance[:, :2]
    extend_encoder(encoder, pairs_for(encoder, [2]))
    torch.manual_seed(0)
    assert encoder.gaussians.count.tolist()[2] == 24
    assert (encoder(given(2, 8)).domain == 2).all()
    assert before.isfinite().all()


def test_extending_touches_no_known_domain(fitted, given):
    encoder, x = copy.deepcopy(fitted), given(0, 4)
    before = encoder(x).distance[:, :2]
    extend_encoder(encoder, pairs_for(encoder, [0, 2]))
    assert_close(encoder(x).distance[:, :2], before, rtol=0, atol=0)


def test_images_of_a_batch_do_not_influence_each_other(fitted, given):
    x = together(given(0, 3), given(1, 3))
    alone = fitted(rows(x, slice(2, 3)))
    assert_close(fitted(x).distance[2:3], alone.distance, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("fitted", PIXELS, indirect=True)  # attributes have no number format
def test_narrow_types_are_estimated_in_float32(fitted):
    x = images(1, 4)
    wanted = fitted(x.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        found = fitted(x.bfloat16())
    assert found.weights.dtype == torch.float32
    assert_close(found.distance, wanted.distance)


def test_a_model_in_a_narrow_type_keeps_its_encoder_in_float32(fitted, given):
    x, narrow = given(1, 4), torch.nn.ModuleList([copy.deepcopy(fitted)]).bfloat16()[0]
    tensors = [one for one in narrow.state_dict().values() if one.is_floating_point()]
    assert {one.dtype for one in tensors} == {torch.float32}
    assert_close(narrow(x).distance, fitted(x).distance)
    assert narrow.double().location.dtype == torch.float64


def test_fitting_again_with_the_same_seed_gives_the_same(fitted):
    encoder = make(type(fitted).__module__.rpartition(".")[2], 3)
    again = copy.deepcopy(encoder)
    training, held_out = pairs_for(encoder, [0, 1]), pairs_for(encoder, [0, 1])
    for one in (encoder, again):
        torch.manual_seed(5)
        fit_encoder(one, training, held_out, seed=3, epochs=2)
    for name, tensor in encoder.state_dict().items():
        assert_close(tensor, again.state_dict()[name], rtol=0, atol=0, msg=name)


@every_encoder
def test_one_domain_can_be_known_alone(name):
    encoder = make(name, 2)
    fit_encoder(encoder, pairs_for(encoder, [1]), pairs_for(encoder, [1]), epochs=1)
    assert (encoder(read_by(encoder)(1, 4)).weights[:, 1] == 1).all()


@every_encoder
def test_encoder_that_was_not_fitted_says_so(name):
    encoder = make(name, 2)
    with pytest.raises(ConditionError, match="knows no domain yet; fit_encoder"):
        encoder(read_by(encoder)(0, 2))


@every_encoder
def test_no_images_are_refused(name):
    with pytest.raises(ConditionError, match="no images to learn from"):
        fit_encoder(make(name, 2), pairs([]), pairs([]))


def test_features_are_not_learned_from_one_domain_after_the_other():
    with pytest.raises(ConditionError, match="images of 2 domains come one domain after"):
        fit_encoder(make("cnn", 2), pairs([0, 1]), pairs([0, 1]))


def test_a_last_batch_of_one_image_without_batch_statistics_is_no_hindrance():
    image = torch.cat([images(0, 8, 32), images(1, 9, 32)])
    domain = torch.tensor([0] * 8 + [1] * 9)
    order = torch.randperm(17)
    given = list(zip(image[order].split(8), domain[order].split(8), strict=True))
    encoder = make("cnn", 2, size=32)  # maps of one pixel in its last norms
    fit_encoder(encoder, given, given, epochs=8)
    assert (encoder(image).domain == domain).float().mean() > 0.9


@every_encoder
def test_unknown_option_is_answered_with_the_known(name):
    with pytest.raises(DomainNormError, match=f"encoder '{name}': unknown option 'hiden': did you"):
        make(name, 2, hiden=3)


@every_encoder
@pytest.mark.parametrize("option", ["hidden", "embedding"])
def test_sizes_below_one_are_refused(name, option):
    with pytest.raises(DomainNormError, match=f"encoder.{option}: got 0, expected 1 or more"):
        make(name, 2, **{option: 0})


def test_small_network_of_no_pixels_is_refused():
    with pytest.raises(DomainNormError, match=r"encoder\.size: got 0, expected 1 or more"):
        make("cnn", 2, size=0)


@pytest.mark.parametrize(
    ("backbone", "nearest"), [("resnet10", "resnet101"), ("qqq", "test_resnet")]
)
def test_unknown_small_network_is_answered_with_others(backbone, nearest):
    with pytest.raises(UnknownNameError, match=f"timm architecture '{backbone}': .*{nearest}"):
        make("cnn", 2, backbone=backbone)


def test_unknown_encoder_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'style'"):
        create_encoder("styl", 2)


def test_style_shares_the_convolution_of_the_backbone():
    network = timm.create_model("test_resnet")
    encoder = create_encoder("style", 2, network)
    assert not any(name.startswith("_stem") for name in encoder.state_dict())
    twin = copy.deepcopy(torch.nn.ModuleDict({"network": network, "encoder": encoder}))
    convolution = next(m for m in twin["network"].modules() if isinstance(m, torch.nn.Conv2d))
    assert twin["encoder"]._stem[0] is convolution


def test_images_of_four_channels_have_a_style():
    network = timm.create_model("test_resnet", in_chans=4)
    encoder = create_encoder("style", 2, network, in_chans=4)
    assert encoder.features(torch.rand(2, 4, 32, 32)).shape == (2, len(encoder.location))
