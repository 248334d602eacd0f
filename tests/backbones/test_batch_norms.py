"""Helpers of torch and timm for batch norms, for converted ones."""

import copy

import pytest
import torch
from timm.layers import freeze_batch_norm_2d
from torch.optim.swa_utils import AveragedModel
from torch.optim.swa_utils import update_bn as torch_update_bn

from domainnorm import convert_norms, freeze_bn, unfreeze_bn, update_bn
from domainnorm.errors import ConversionError, DataError
from tests.backbones.networks import DOMAINS, converted, plain

IMAGES = torch.randn(12, 3, 64, 64) * 2 + 1
LABELS = torch.tensor([0, 2, 0, 0, 2, 2, 0, 2, 0, 0, 0, 2])


def batches(size=4):
    return list(zip(IMAGES.split(size), LABELS.split(size), strict=True))


def test_moments_are_those_of_torch_where_all_images_are_one_batch():
    network = plain("resnet10t")
    model = convert_norms(copy.deepcopy(network), "dsbn", DOMAINS)
    before = copy.deepcopy(model)
    torch_update_bn([IMAGES.double()], network)
    update_bn([(IMAGES.double(), torch.ones(12, dtype=torch.long))], model)
    for layer in model.conversion:
        old, new = (part.get_submodule(layer.path) for part in (network, model.backbone))
        torch.testing.assert_close(new.statistics.running_mean[1], old.running_mean)
        kept = before.backbone.get_submodule(layer.path).statistics.running_mean
        assert torch.equal(new.statistics.running_mean[::2], kept[::2])


def test_torchs_own_helper_does_nothing_which_is_why_there_is_ours():
    model = converted("resnet10t")
    before = copy.deepcopy(model.state_dict())
    torch_update_bn([], model)
    assert all(torch.equal(now, before[key]) for key, now in model.state_dict().items())


def test_update_takes_mappings_and_keeps_modes_and_weights():
    model = converted("resnet10t")
    model.backbone.layer1.eval()
    modes = [module.training for module in model.modules()]
    other = copy.deepcopy(model)
    update_bn([{"image": image, "domain": domain} for image, domain in batches()], model)
    update_bn(batches(), other)
    assert [module.training for module in model.modules()] == modes
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key]), key


def test_layers_that_were_not_converted_are_updated_as_torch_does():
    model = convert_norms(plain("resnet10t"), "dsbn", DOMAINS, where="early").float()
    late = model.backbone.layer4[0].bn1
    late.running_mean.fill_(7)
    update_bn(batches(12), model)
    assert late.running_mean.abs().max() < 7
    assert late.momentum == 0.1
    assert late.num_batches_tracked == 1


def test_averaged_weights_get_moments():
    model = converted("resnet10t")
    averaged = AveragedModel(model)
    update_bn(batches(), averaged.module)
    moved, still = (next(iter(one.norms())).statistics for one in (averaged.module, model))
    assert not torch.equal(moved.running_mean[0], still.running_mean[0])


@pytest.mark.parametrize("loader", [[], [torch.zeros(2, 3, 32, 32)], [(1, 2)]])
def test_update_refuses_what_holds_no_images(loader):
    with pytest.raises(DataError, match=r"^update_bn: "):
        update_bn(loader, converted("resnet10t"))


@pytest.mark.parametrize("norm", ["dsbn", "cbn", "auto_bn", "bin", "iabn", "sn", "cluster_in"])
def test_frozen_layers_are_in_training_what_they_are_in_evaluation(norm):
    model = converted("test_efficientnet", norm)
    freeze_bn(model)
    model.train()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        trained = model(IMAGES, LABELS)
        torch.testing.assert_close(trained, model.eval()(IMAGES, LABELS))
    assert all(torch.equal(now, before[key]) for key, now in model.state_dict().items())
    assert not any(p.requires_grad for n in model.norms() for p in n.parameters())


def test_frozen_parameters_are_those_of_timm():
    network = plain("resnet10t")
    model = convert_norms(copy.deepcopy(network), "dsbn", DOMAINS)
    freeze_bn(model)
    frozen = freeze_batch_norm_2d(network)
    trained = [name for name, parameter in frozen.named_parameters() if parameter.requires_grad]
    assert [n for n, p in model.backbone.named_parameters() if p.requires_grad] == trained


def test_freezing_a_part_and_back():
    model = converted("resnet10t").train()
    freeze_bn(model, "early")
    first, *_, last = (norm.statistics for norm in model.norms())
    before = first.num_batches_tracked[0].item()
    copy.deepcopy(model)(IMAGES, LABELS)
    model(IMAGES, LABELS)
    assert first.num_batches_tracked[0] == before
    assert last.num_batches_tracked[0] == before + 1
    unfreeze_bn(model)
    model(IMAGES, LABELS)
    assert first.num_batches_tracked[0] == before + 1
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ConversionError, match="layer9"):
        freeze_bn(model, "layer9.*")
