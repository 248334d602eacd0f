"""What becomes of one architecture, on the meta device: names and shapes, no values."""

from collections import Counter
from dataclasses import dataclass, field

import timm
import torch
from torch import nn

from domainnorm.backbones import convert_norms
from domainnorm.errors import ConversionError
from domainnorm.norms import ConditionalNorm
from tests.backbones.sweep.kept import DOMAINS, Kept, norm_layers

# Modules of timm whose classes normalize and do more in one formula.
_FUSED = ("timm.layers.evo_norm", "timm.layers.filter_response_norm", "timm.layers.inplace_abn")
_REWEIGHTS = {"GlobalResponseNorm", "GlobalResponseNormMlp"}  # reweights channels: no norm layer


@dataclass
class Survey:
    """One line of the sweep.

    Args:
        name: Architecture.
        family: The module of timm that defines it.
        parameters: Number of parameters.
        norms: Norm classes -> number of layers.
        signature: Norm classes, each with what a conversion has to know of it: whether it ends with
            an activation, and which of scale and shift it lacks.
        refusal: The reason, or empty for a converted architecture.
        stayed: Classes with a name like a norm's that conversion left alone.
        problems: What is not as it has to be.
    """

    name: str
    family: str
    parameters: int
    norms: dict[str, int]
    signature: str
    refusal: str = ""
    stayed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def wrong(self):
        """What is not as it has to be."""
        return self.problems


def family_of(name):
    return timm.models.model_entrypoint(name).__module__.rpartition(".")[2]


def survey(name):
    """Create an architecture, convert it, and look at what is there then."""
    with torch.device("meta"):
        network = timm.create_model(name)
    layers = norm_layers(network)
    found = Survey(
        name,
        family_of(name),
        sum(parameter.numel() for parameter in network.parameters()),
        dict(sorted(Counter(type(layer).__name__ for layer in layers.values()).items())),
        ", ".join(sorted({_signature(layer) for layer in layers.values()})),
    )
    refused = not layers or any(type(m).__module__ in _FUSED for m in network.modules())
    kept = Kept(network)
    try:
        model = convert_norms(network, None, DOMAINS)
    except ConversionError as error:
        found.refusal = str(error).partition(": ")[2].partition(";")[0]
        if not refused:
            found.problems.append(f"refused: {error}")
        return found
    if refused:
        found.problems.append("converted, though it has no norm layer or a fused one")
    found.problems += kept.problems(model)
    found.stayed, problems = _stayed(model)
    found.problems += problems
    return found


def _signature(layer):
    carried = [getattr(layer, name, None) for name in ("drop", "act")]
    active = any(part is not None and type(part) is not nn.Identity for part in carried)
    lacks = [name for name in ("weight", "bias") if getattr(layer, name, None) is None]
    activation = " + activation" if active else ""
    return f"{type(layer).__name__}{activation}" + "".join(f" without {name}" for name in lacks)


def _stayed(model):
    """Classes with *norm* in their name that are still there, and those that should not be."""
    classes, problems = set(), []
    for path, module in model.backbone.named_modules():
        name = type(module).__name__
        if "norm" not in name.lower() or isinstance(module, ConditionalNorm):
            continue
        classes.add(name)
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)] and (
            name not in _REWEIGHTS
        ):
            problems.append(f"{path} ({name}) has tensors and was left alone")
    return sorted(classes), problems
