"""Where each tensor of a network has to be after its conversion."""

from collections import Counter

import torch

DOMAINS = ("a", "b")
# The norm layers of timm and their kins, written down from timm's own list and not from the table
# that the conversion goes by.
KINS = {
    "BatchNorm1d": "dsbn",
    "BatchNorm2d": "dsbn",
    "BatchNormAct2d": "dsbn",
    "FrozenBatchNormAct2d": "dsbn",
    "GroupNorm": "cgn",
    "GroupNorm1": "cgn",
    "GroupNorm1NoBias": "cgn",
    "GroupNormAct": "cgn",
    "LayerNorm": "cln",
    "LayerNorm2d": "cln",
    "LayerNorm2dFp32": "cln",
    "LayerNorm2dNoBias": "cln",
    "LayerNormAct": "cln",
    "LayerNormAct2d": "cln",
    "LayerNormFp32": "cln",
    "LayerNormNoBias": "cln",
    "RMSNorm": "crms",
    "RmsNorm": "crms",
    "RmsNorm2d": "crms",
    "RmsNormAct2d": "crms",
    "RmsNormFp32": "crms",
    "SimpleNorm": "deviation*table",
    "SimpleNorm2d": "deviation*table",
}
_ROWS = {
    "weight": "modulation.scale",
    "bias": "modulation.shift",
    "running_mean": "statistics.running_mean",
    "running_var": "statistics.running_var",
    "num_batches_tracked": "statistics.num_batches_tracked",
}


def norm_layers(network, remove_duplicate=True):
    """Norm layers by path, by the names of their classes."""
    modules = network.named_modules(remove_duplicate=remove_duplicate)
    return {path: module for path, module in modules if type(module).__name__ in KINS}


def tensors(network):
    """All parameters and buffers by key, those outside the state dict included."""
    return {**dict(network.named_buffers(remove_duplicate=False)), **network.state_dict()}


class Kept:
    """The tensors of a network before its conversion, which happens in place."""

    def __init__(self, network):
        layers = norm_layers(network, remove_duplicate=False)
        self.before = {key: tensor.clone() for key, tensor in tensors(network).items()}
        self.keys = {}
        for key in self.before:
            path, _, name = key.rpartition(".")
            row = path in layers and name in _ROWS
            self.keys[key] = f"backbone.{path}.{_ROWS[name]}" if row else f"backbone.{key}"
        self.rows = {f"backbone.{path}.{half}" for path in layers for half in _ROWS.values()}
        self.pairs = {
            f"backbone.{path}.modulation.{half}" for path in layers for half in ("scale", "shift")
        }
        self.classes = Counter(type(layer).__name__ for layer in norm_layers(network).values())

    def problems(self, model):
        """What is lost, changed or left over, and layers with another norm than their kin."""
        after, found = tensors(model), []
        for key, tensor in self.before.items():
            new = after.get(self.keys[key])
            wanted = tensor
            if self.keys[key] in self.rows:
                wanted = tensor.expand(len(DOMAINS), *tensor.shape)
            if new is None:
                found.append(f"{key} is lost")
            elif (new.shape, new.dtype) != (wanted.shape, wanted.dtype):
                found.append(f"{key} became {new.dtype} {tuple(new.shape)}")
            elif not new.is_meta and not torch.equal(new, wanted):
                found.append(f"{key} has other values")
        # Layers without scale or shift gain both.
        left = after.keys() - set(self.keys.values())
        found += [f"{key} is left over" for key in sorted(left - self.pairs)]
        found += [f"{key} is missing" for key in sorted(self.pairs - after.keys())]
        if Counter(layer.old for layer in model.conversion) != self.classes:
            found.append(f"converted {Counter(layer.old for layer in model.conversion)}")
        for layer in model.conversion:
            if layer.new != KINS[layer.old] or not layer.exact:
                found.append(f"{layer.path} ({layer.old}) became {layer.new}, exact={layer.exact}")
        return found
