"""Logits of one architecture with real weights, before and after conversion and folding."""

from dataclasses import dataclass

import timm
import torch
from torch import nn

from domainnorm.backbones import convert_norms, fold_domain
from domainnorm.backbones.conversion.example import example_image
from tests.backbones.sweep.kept import DOMAINS, Kept, tensors

# The largest and slowest ones with fewer blocks of the same kind, or smaller images.
OPTIONS = {
    "beit_base_patch16_224": {"depth": 3},
    "deepseek_vit_412m": {"depth": 2, "img_size": 112},
    "deepseek_vit_412m_enc": {"depth": 2, "img_size": 112},
    "gemma4_vit_167m": {"depth": 3},
    "samvit_base_patch16_224": {"depth": 3},
    "vgg11_bn": {"mlp_ratio": 0.125},
    "vit_base_mci_224": {"img_size": 64},
}
TOLERANCE = 1e-10
# Where a class computes in float32 whatever comes in, and its conditional norm in float64.
TOLERANCE_SINGLE = 1e-5


@dataclass
class Comparison:
    """Relative differences of outputs, float64.

    Args:
        name: Architecture.
        size: Height and width of the two images.
        single: Whether some norm class computes in float32.
        differences: Situation -> largest difference of outputs, by the largest output.
        problems: What is not as it has to be.
    """

    name: str
    size: list[int]
    single: bool
    differences: dict[str, float]
    problems: list[str]

    def wrong(self):
        """Problems, differences that are too large among them."""
        allowed = TOLERANCE_SINGLE if self.single else TOLERANCE
        return self.problems + [
            f"{case}: relative difference {value:.1e}, allowed {allowed:.0e}"
            for case, value in self.differences.items()
            if not value <= allowed
        ]


def compare(name):
    """Convert a network whose tensors are all random, and fold it again."""
    torch.manual_seed(0)
    options = OPTIONS.get(name, {})
    network = move(timm.create_model(name, num_classes=5, **options).double())
    single = any("Fp32" in type(module).__name__ for module in network.modules())
    example = example_image(network, **options)
    image = torch.randn(2, *example.shape[1:], dtype=torch.float64)
    kept, wanted = Kept(network), outputs(network.eval(), image)
    trained = outputs(network.train(), image)
    moments = {key: tensor.clone() for key, tensor in running(network).items()}
    network.load_state_dict({key: kept.before[key] for key in network.state_dict()})

    model = convert_norms(network, None, DOMAINS, example=example)
    problems = kept.problems(model)
    model.eval()
    found = {
        "evaluation": distance(outputs(model, image, ["a", "b"]), wanted),
        "evaluation, other way round": distance(outputs(model, image, ["b", "a"]), wanted),
        "training": distance(outputs(model.train(), image, "b"), trained),
        "running moments": after_training(model, kept, moments),
    }
    model.eval()
    folded = fold_domain(model, "a")  # has not been in training
    problems += differing(folded, kept)
    found["folded"] = distance(outputs(folded, image), wanted)
    move_rows(model, "b")
    folded, own = fold_domain(model, "b"), outputs(model, image, "b")
    found["folded with rows of its own"] = distance(outputs(folded, image), own)
    if not distance(own, wanted) > 1e-6:
        problems.append("outputs hardly depend on the rows of the domain")
    return Comparison(name, list(image.shape[2:]), single, found, problems)


@torch.no_grad()
def move(network):
    """Take all vectors and zeros away from their start: a LayerScale of 1e-6 hides its block."""
    for parameter in network.parameters():
        if parameter.ndim <= 1 or not parameter.any():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for module in network.modules():
        if getattr(module, "running_mean", None) is not None:
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            module.num_batches_tracked.fill_(3)
    return network


@torch.no_grad()
def move_rows(model, domain):
    """Give a domain rows of its own, a shift where the old class has a place for one."""
    row = model.domain_names.index(domain)
    for norm in model.norms():
        scale, shift = norm.modulation.scale[row], norm.modulation.shift[row]
        scale.add_(0.1 * torch.randn_like(scale))
        if hasattr(norm.origin, "bias"):
            shift.add_(0.1 * torch.randn_like(shift))


@torch.no_grad()
def outputs(network, image, *domain):
    """All numbers that come out; the same seed for every call, so that dropout drops the same."""
    torch.manual_seed(1)
    result = network(image.clone(), *domain)
    several = result if isinstance(result, (tuple, list)) else [result]
    return torch.cat([tensor.flatten() for tensor in several])


def distance(found, wanted):
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def running(network):
    state = network.state_dict()
    return {key: state[key] for key in state if key.endswith(("running_mean", "running_var"))}


def after_training(model, kept, moments):
    """Difference of running moments; those of the absent domain have to be what they were."""
    state = model.state_dict()
    pairs = [
        (state[kept.keys[key]][row], tensor)
        for rows, row in ((kept.before, 0), (moments, 1))
        for key, tensor in ((key, rows[key]) for key in moments)
    ]
    return max((distance(found, wanted) for found, wanted in pairs), default=0.0)


def differing(folded, kept):
    """Keys and values of a folded network against those of the original."""
    found = tensors(folded)
    if found.keys() != kept.before.keys():
        return [f"folded: other keys, {sorted(found.keys() ^ kept.before.keys())}"]
    return [
        f"folded: {key} has other values"
        for key, tensor in kept.before.items()
        if not torch.equal(found[key], tensor)
    ]
