"""Outputs of batch-norm networks before and after conversion."""

import copy
import functools

import torch

from domainnorm.backbones import convert_norms
from tests.backbones.networks import DOMAINS, copy_row, plain, randomize
from tests.combinations import covering

ARCHITECTURES = {
    "test_efficientnet": 64,
    "test_resnet": 64,
    "test_byobnet": 64,
    "resnet10t": 64,
    "resnet18d": 64,
    "mobilenetv3_small_050": 64,
    "densenet121": 32,
    "tf_efficientnet_lite0": 64,
    "resnest14d": 64,
    "regnetz_b16": 64,
    "repvgg_a0": 64,
    "ghostnet_050": 64,
    "dla34": 32,
    "eca_vovnet39b": 32,
    "seresnext26t_32x4d": 64,
    "cspresnet50": 32,
    "resnetv2_18": 64,
    "fasternet_t0": 64,
    "starnet_s1": 64,
    "repvit_m0_9": 64,
    "levit_128s": 224,  # folds tokens into the batch axis
    "efficientvit_m0": 224,  # folds windows into the batch axis
}
SLOW = {"densenet121", "resnest14d", "regnetz_b16", "dla34", "eca_vovnet39b", "seresnext26t_32x4d"}
SLOW |= {"cspresnet50", "starnet_s1", "repvit_m0_9", "levit_128s", "efficientvit_m0", "resnetv2_18"}
# Both norms share the conversion.
every_architecture = covering(1, _slow=SLOW, name=ARCHITECTURES, norm=["dsbn", "cbn"])


def exact(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


network = functools.lru_cache(maxsize=2)(plain)


def pair(name, norm):
    torch.manual_seed(0)
    image = torch.randn(3, 3, ARCHITECTURES[name], ARCHITECTURES[name], dtype=torch.float64)
    original = copy.deepcopy(network(name))
    model = convert_norms(copy.deepcopy(original), norm, DOMAINS, example=image[:1])
    return original, model, image


@every_architecture
def test_conversion_is_exact_in_evaluation_for_every_domain(name, norm):
    original, model, image = pair(name, norm)
    wanted = original.eval()(image)
    model.eval()
    exact(model(image, list(DOMAINS)), wanted)


@every_architecture
def test_conversion_is_exact_in_training_and_tracks_the_same_moments(name, norm):
    original, model, image = pair(name, norm)
    outputs = []
    for network, arguments in ((original, ()), (model, ("b",))):
        torch.manual_seed(1)  # dropout
        output = network.train()(image, *arguments)
        # LeViT returns the logits of its two heads while it trains.
        outputs.append(torch.cat(output) if isinstance(output, tuple) else output)
    exact(outputs[1], outputs[0])
    for layer in model.conversion:
        old, new = original.get_submodule(layer.path), model.backbone.get_submodule(layer.path)
        row = 1 if norm == "dsbn" else 0
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            exact(new.statistics.get_buffer(key)[row], old.get_buffer(key))


@covering(1, name=["resnet10t", "tf_efficientnet_lite0", "ghostnet_050"], training=[False, True])
def test_mixed_batch_equals_a_plain_network_per_domain(name, training):
    size = ARCHITECTURES[name]
    image = torch.randn(6, 3, size, size, dtype=torch.float64)
    domain = torch.tensor([2, 0, 1, 0, 2, 1])
    original = plain(name, drop_rate=0.0)
    model = convert_norms(copy.deepcopy(original), "dsbn", DOMAINS, example=image[:1])
    for row, _ in enumerate(DOMAINS):
        source = randomize(copy.deepcopy(original))
        for layer in model.conversion:
            norm, old = (n.get_submodule(layer.path) for n in (model.backbone, source))
            with torch.no_grad():
                norm.modulation.scale[row], norm.modulation.shift[row] = old.weight, old.bias
                norm.statistics.running_mean[row] = old.running_mean
                norm.statistics.running_var[row] = old.running_var
    alone = [copy_row(model, copy.deepcopy(original), row).train(training) for row in range(3)]
    found = model.train(training)(image, domain)
    for row, network in enumerate(alone):
        exact(found[domain == row], network(image[domain == row]))
