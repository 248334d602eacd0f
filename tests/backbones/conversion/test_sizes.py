"""Layers whose rows are images at one size, and windows of images at another."""

import copy

import pytest
import timm
import torch

from domainnorm.backbones import convert_norms, create_model, fold_domain, update_bn
from domainnorm.errors import ConditionError
from tests.backbones.networks import DOMAINS, randomize
from tests.combinations import few

WINDOWED = ["tiny_vit_5m_224", "efficientvit_m0"]


@pytest.fixture(params=few(1, WINDOWED))
def network(request):
    torch.manual_seed(0)
    return randomize(timm.create_model(request.param, num_classes=3))


@pytest.mark.slow
@pytest.mark.parametrize("size", few(1, [256, 224, 320]))
def test_other_sizes_than_the_one_that_was_looked_at(network, size):
    network.eval()
    image = torch.rand(3, 3, size, size)
    with torch.no_grad():
        wanted = network(image)
        model = convert_norms(copy.deepcopy(network), None, DOMAINS)
        torch.testing.assert_close(model.eval()(image, ["a", "b", "c"]), wanted)
        torch.testing.assert_close(fold_domain(model, "b").eval()(image), wanted)


@pytest.mark.slow
def test_looking_again_moves_nothing(network):
    model = convert_norms(network, None, DOMAINS).train()
    image, domain = torch.rand(3, 3, 256, 256), torch.tensor([0, 2, 0])
    known = copy.deepcopy(model).eval()
    known(image, domain)
    known.train()
    modes = [module.training for module in model.modules()]
    for one in (model, known):
        torch.manual_seed(1)
        one(image, domain).sum().backward()
    assert [module.training for module in model.modules()] == modes
    for key, tensor in known.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key
    for key, parameter in known.named_parameters():
        assert torch.equal(model.get_parameter(key).grad, parameter.grad), key


@pytest.mark.slow
def test_a_domain_reaches_the_windows_of_its_image_alone(network):
    model = convert_norms(network, None, DOMAINS).eval()
    for norm in model.norms():
        norm.modulation.shift.data.normal_()
    image = torch.rand(3, 3, 256, 256)
    with torch.no_grad():
        both = model(image, ["a", "b", "c"])
        alone = [model(image[i : i + 1], name) for i, name in enumerate("abc")]
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_features_are_looked_at_as_the_network_takes_them():
    model = create_model("tiny_vit_5m_224", 3, None, DOMAINS).eval()
    image = torch.rand(2, 3, 256, 256)
    with torch.no_grad():
        features = model.forward_features(image, ["a", "b"])
        wanted = model(image, ["a", "b"])
        torch.testing.assert_close(model.forward_head(features, ["a", "b"]), wanted)
        with model.condition(image, "a") as backbone:
            backbone(image)


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [True, False])
def test_windows_are_found_in_half_precision(autocast):
    torch.manual_seed(0)
    model = create_model("tiny_vit_5m_224", 3, None, DOMAINS)
    image, domain = torch.rand(3, 3, 256, 256), torch.tensor([0, 1, 0])
    if not autocast:
        model, image = model.bfloat16(), image.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model(image, domain).sum().backward()
    assert sum(norm.folded for norm in model.norms()) == 10
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.slow
def test_hooks_see_the_images_of_the_batch_once(network):
    model = convert_norms(network, None, DOMAINS).eval()
    image, domain = torch.rand(3, 3, 256, 256), torch.tensor([0, 1, 0])
    known, seen = copy.deepcopy(model), []
    known(image, domain)
    update_bn([(image, domain)], known, progress=False)
    model.get_classifier().register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    update_bn([(image, domain)], model, progress=False)
    assert seen == [3]
    for key, tensor in known.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


@pytest.mark.parametrize("given", ["style", "thumbnail"])
def test_images_of_moments_are_those_of_the_first_sample(given):
    norm = {"style": "domain*style", "thumbnail": "thumbnail*table"}[given]
    rules = {"patch_embed.*": norm, "stages.[23].*": None}
    model = create_model("tiny_vit_5m_224", 3, rules, DOMAINS).eval()
    moments = {
        one.path: (torch.zeros(3, one.num_features), torch.ones(3, one.num_features))
        for one in model.norms()
        if one.path.startswith("patch_embed")
    }
    image, domain = torch.rand(3, 3, 256, 256), torch.tensor([0, 1, 0])
    assert model(image, domain, **{given: moments}).shape == (3, 3)


class Shuffled(torch.nn.Module):
    """Windows of all images, those of one place after another."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(6)

    def forward(self, image):
        if image.shape[-1] > 4:
            parts = image.unfold(3, 4, 4).unbind(3)
            image = torch.cat(parts)
        return self.norm(image.flatten(1).unflatten(1, (-1, 6)))


def test_rows_in_another_order_are_refused():
    model = convert_norms(Shuffled(), None, DOMAINS, example=torch.rand(1, 3, 2, 4))
    model(torch.rand(2, 3, 2, 4), ["a", "b"])
    message = "norm: 4 rows for 2 domain labels, not one image after the other"
    with pytest.raises(ConditionError, match=message):
        model(torch.rand(2, 3, 2, 8), ["a", "b"])
    assert not any(norm.folded for norm in model.norms())


@pytest.mark.parametrize("name", ["levit_128s", "mobilevit_xxs", *WINDOWED])
def test_networks_of_timm_need_no_example(name):
    without = convert_norms(timm.create_model(name), "cin", DOMAINS).conversion
    assert list(without) == list(create_model(name, 1000, "cin", DOMAINS).conversion)


class Masked(torch.nn.Module):
    """A network of timm inside another, which takes more than an image."""

    def __init__(self, config):
        super().__init__()
        self.network = timm.create_model("test_resnet", num_classes=3)
        self.pretrained_cfg = config

    def forward(self, image, mask):
        return self.network(image * mask)


@pytest.mark.parametrize("config", [{"input_size": (3, 64, 64)}, None, "of another package"])
def test_networks_that_take_other_things_need_no_example_either(config):
    model = convert_norms(Masked(config), None, DOMAINS)
    image = torch.rand(2, 3, 64, 64)
    with model.condition(image, ["a", "b"]) as backbone:
        assert backbone(image, image > 0.5).shape == (2, 3)
