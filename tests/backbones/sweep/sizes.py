"""Other image sizes than the one a conversion looked at: ``python -m tests.backbones.sweep.sizes``.

A layer may see the images of a batch as its rows at one size, and windows or tokens of them at
another. One architecture for each set of norm layers that has attention, windows or tokens.
"""

import copy
import sys

import timm
import torch

from domainnorm.backbones import convert_norms
from tests.backbones.sweep.kept import DOMAINS
from tests.backbones.sweep.logits import OPTIONS, distance, move, outputs

SIZES = (96, 256, 320)
_PARTS = ("att", "window", "token")
_TOLERANCE = 1e-4  # of float32


def has_parts(network):
    """Whether some class in it is named after parts of an image."""
    names = {type(module).__name__.lower() for module in network.modules()}
    return any(part in name for part in _PARTS for name in names)


def wrong_at(network, model, size):
    """What differs at a size, nothing where it is right; None for a size it does not take."""
    image = torch.randn(2, network.pretrained_cfg["input_size"][0], size, size)
    try:
        wanted = outputs(network, image)
    except (RuntimeError, AssertionError, ValueError, IndexError):
        return None
    try:
        apart = distance(outputs(model, image, list(DOMAINS[:2])), wanted)
    except Exception as error:  # of whatever kind
        return repr(error)
    return "" if apart <= _TOLERANCE else f"relative difference {apart:.1e}"


def main(names):
    taken, networks, faults = 0, 0, []
    for name in names:
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=5, **OPTIONS.get(name, {}))
        if not has_parts(network):
            continue
        network = move(network).eval()
        model = convert_norms(copy.deepcopy(network), None, DOMAINS).eval()
        networks += 1
        for size in SIZES:
            found = wrong_at(network, model, size)
            taken += found is not None
            faults += [f"{name} at {size}: {found}"] if found else []
    print(f"{networks} architectures, {taken} times at {', '.join(map(str, SIZES))} px")
    print(*faults or ["no fault"], sep="\n")
    return bool(faults)


if __name__ == "__main__":
    from tests.backbones.test_sweep import REPRESENTATIVES

    sys.exit(main(sys.argv[1:] or REPRESENTATIVES))
