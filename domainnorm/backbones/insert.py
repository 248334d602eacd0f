"""Perturbations of features put into a network, by the name of the place."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from domainnorm.backbones.conversion.norm_rules import feature_maps
from domainnorm.backbones.model import DomainModel
from domainnorm.errors import ConversionError, DomainNormError
from domainnorm.perturbations import Perturbation, create_perturbation


def insert_after(
    model: DomainModel, perturbation: str, where: str | Sequence[str] | None = None, **options: Any
) -> list[str]:
    """Perturb the outputs of modules of the backbone in training.

    Each place gets a forward hook. The backbone keeps its modules and state-dict keys, which a
    wrapper in `torch.nn.Sequential` would rename: weights load as before, and without the hooks
    it is the network it was. The perturbations have no state; they are children of ``model``, so
    they follow its ``train()`` and ``eval()``, copies and pickles.

    Args:
        model: Changed in place.
        perturbation: A name of `domainnorm.perturbations.list_perturbations`.
        where: ``stem``, ``stage1``, ``stage2``, … (feature maps at 1/2, then from 1/4 of the
            image, as timm's ``feature_info`` tells), globs over module paths of the backbone
            (``"layer1"``, ``"blocks.?"``), or a list of them. None: where the paper puts it, after
            the first two stages for MixStyle and EFDMix, after the stem and all stages for DSU and
            pAdaIN.
        **options: Of the perturbation (``p``, ``mode``, …). ``channel_axis`` has to be given for
            features with three axes, tokens (N, L, C) or sequences (N, C, L); where it is not,
            it is -1 if timm declares maps (N, H, W, C), else 1.

    Returns:
        Paths of the modules whose outputs are perturbed. Of a `torch.nn.Sequential` that is its
        last part: timm's gradient checkpointing calls the parts and not the whole.

    Raises:
        ConversionError: A place that the backbone does not have, or one that is perturbed already.
        DomainNormError: An unknown perturbation or option.

    Example:
        >>> insert_after(model, "mixstyle", mode="cross_domain")
        ['layer1.1', 'layer2.1']
    """
    three_axes = options.get("channel_axis") is not None
    if not three_axes and getattr(model.backbone, "output_fmt", None) == "NHWC":
        options = {**options, "channel_axis": -1}
    default = create_perturbation(perturbation, **options).default_where
    paths = _resolve(model.backbone, default if where is None else where, where is None)
    known = {made.path for made in _inserted(model)}
    for path in paths:
        if path in known:
            raise ConversionError(f"where: the output of '{path}' is perturbed already")
    made = {path: create_perturbation(perturbation, **options) for path in paths}
    for path, module in made.items():
        module.path, module.slot = path, model.slot
        module.train(model.training)
        model.backbone.get_submodule(path).register_forward_hook(_Perturb(module, three_axes))
    model.add_module("perturbations", nn.ModuleList([*_inserted(model), *made.values()]))
    return paths


def remove_perturbations(network: nn.Module) -> None:
    """Take away what `insert_after` has put behind modules of ``network``."""
    for module in network.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, _Perturb):
                del module._forward_hooks[key]


class _Perturb:
    """The hook; an object of a module-level class, so that models can be copied and pickled."""

    def __init__(self, perturbation: Perturbation, three_axes: bool) -> None:
        self.perturbation = perturbation
        self.three_axes = three_axes

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise DomainNormError(
                f"{self.perturbation.path}: returns {type(output).__name__}, which cannot be "
                "perturbed; insert after a module that returns one tensor"
            )
        if output.ndim == 3 and not self.three_axes:
            raise DomainNormError(
                f"{self.perturbation.path}: returns {tuple(output.shape)}, tokens or a sequence; "
                "say which axis the channels are, channel_axis=-1 for tokens (N, L, C)"
            )
        perturbed: Tensor = self.perturbation(output)
        return perturbed


def _inserted(model: DomainModel) -> list[Perturbation]:
    return [module for module in model.modules() if isinstance(module, Perturbation)]


def _resolve(backbone: nn.Module, where: str | Sequence[str], skip_absent: bool) -> list[str]:
    stages = _stages(backbone)
    paths = [path for path, _ in backbone.named_modules() if path]
    chosen: dict[str, None] = {}
    for entry in [where] if isinstance(where, str) else where:
        matched = [path for path in paths if fnmatchcase(path, entry)]
        matched = [stages[entry]] if entry in stages else matched
        if not matched and not skip_absent:
            raise ConversionError(_absent(entry, stages, paths))
        chosen.update(dict.fromkeys(_last_part(backbone, path) for path in matched))
    if not chosen:
        raise ConversionError(
            f"{type(backbone).__name__} declares no stages; say with `where` after which modules, "
            f"e.g. where='{paths[0] if paths else ''}'"
        )
    return list(chosen)


def _stages(backbone: nn.Module) -> dict[str, str]:
    """``stem`` and ``stage<i>`` -> module path."""
    maps = feature_maps(backbone)
    stem = [path for path, reduction in maps if reduction < 4]
    stages = [path for path, reduction in maps if reduction >= 4]
    found = {"stem": stem[-1]} if stem else {}
    return {**found, **{f"stage{i}": path for i, path in enumerate(stages, 1)}}


def _last_part(backbone: nn.Module, path: str) -> str:
    module = backbone.get_submodule(path)
    while type(module) is nn.Sequential and len(module):
        name, module = list(module.named_children())[-1]
        path = f"{path}.{name}"
    return path


def _absent(entry: str, stages: dict[str, str], paths: Sequence[str]) -> str:
    names = ", ".join(f"{name} ({path})" for name, path in stages.items()) or "no declared stages"
    sample = ", ".join([path for path in paths if "." not in path][:8])
    return (
        f"where: '{entry}' is no place in this backbone; it has {names}, or use a glob over "
        f"module paths ({sample}, …)"
    )
