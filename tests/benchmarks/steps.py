"""Training steps of converted networks: ``python -m tests.benchmarks.steps [--markdown]``.

A step is forward, cross-entropy, backward and SGD, of a mixed batch of four domains. *control* is
the original network against another copy of itself. Networks whose norms cannot be converted are
named below the table.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import NamedTuple

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.backbones import DomainModel, convert_norms
from domainnorm.errors import ConversionError
from tests.benchmarks.table import render, verdict
from tests.benchmarks.timer import interleaved, prepare, ratio

NETWORKS = (
    "resnet18",
    "resnet50",
    "tf_efficientnet_lite0",
    "mobilenetv3_small_100",
    "convnext_atto",
    "vit_tiny_patch16_224",
)
DOMAINS = ("a", "b", "c", "d")
LAYER_NORM = ("convnext_atto", "vit_tiny_patch16_224")
HEAD = ("network", "norm", "layout", "ratio", "target", "control")


class Step(NamedTuple):
    """One way to run a network.

    Args:
        norm: What every norm becomes.
        target: Highest ratio to the original network's step that is accepted.
    """

    norm: str
    target: float


def steps_of(network: str) -> tuple[Step, ...]:
    return (
        (Step("cln", 1.15),) if network in LAYER_NORM else (Step("cin", 1.10), Step("dsbn", 1.15))
    )


def training_step(
    network: nn.Module, image: Tensor, target: Tensor, **condition: Tensor
) -> Callable[[], None]:
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(image, **condition), target).backward()
        optimizer.step()

    return step


def converted(name: str, norm: str, image: Tensor) -> DomainModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cin falls back to dsbn on maps of one element
        return convert_norms(original(name), {"all": norm}, DOMAINS, example=image[:1])


def original(name: str) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(name, num_classes=10)
    return network.train()


def measure(name: str, channels_last: bool, quick: bool) -> list[tuple[str, ...]]:
    """Rows of one network, timed in one run."""
    batch_size, size = (4, 224) if "vit" in name else (8, 128)
    image, target = torch.randn(batch_size, 3, size, size), torch.arange(batch_size)
    domain = torch.arange(batch_size) % len(DOMAINS)
    networks = {"original": original(name), "control": original(name)}
    wanted = {step.norm: step for step in steps_of(name)}
    for norm in wanted:
        networks[norm] = converted(name, norm, image).train()
    if channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
        networks = {key: it.to(memory_format=torch.channels_last) for key, it in networks.items()}
    timed = {
        key: training_step(it, image, target, **({"domain": domain} if key in wanted else {}))
        for key, it in networks.items()
    }
    times = interleaved(timed, budget=0.0, rounds=3 if quick else 15)
    control = f"{ratio(times, 'control', 'original'):.2f}"
    rows = []
    for norm, step in wanted.items():
        found = ratio(times, norm, "original")
        layout = "channels_last" if channels_last else "NCHW"
        rows.append((name, norm, layout, f"{found:.2f}", verdict(found, step.target), control))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.steps", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--quick", action="store_true", help="a fifth of the time, more noise")
    parser.add_argument("--channels-last", action="store_true", help="networks in channels_last")
    parser.add_argument("--only", default="", help="only networks whose name holds this text")
    arguments = parser.parse_args()
    prepare()
    rows, refused = [], []
    for name in NETWORKS:
        if arguments.only not in name:
            continue
        try:
            rows += measure(name, arguments.channels_last, arguments.quick)
        except ConversionError as error:
            refused.append(f"{name}: not converted, {str(error).splitlines()[0]}")
    print(render(HEAD, rows, arguments.markdown))
    if refused:
        print("\n" + "\n".join(refused))


if __name__ == "__main__":
    main()
