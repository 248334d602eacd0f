"""Layers against the native layer: ``python -m tests.benchmarks.norms [--markdown] [--quick]``.

Each row is one interleaved run. *control* is the native layer against another copy of itself: what
is read there is noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.norms import CATALOGUE, create_norm
from tests.benchmarks.table import render, verdict
from tests.benchmarks.timer import interleaved, prepare, ratio, saved_bytes
from tests.benchmarks.usual import InstanceNormThenAffine, MaskPerDomain

NUM_DOMAINS = 4
SHAPES = ((16, 64, 56, 56), (32, 128, 28, 28), (32, 512, 7, 7))
HEAD = ("case", "ratio", "target", "control", "usual way", "kept / x", "native kept / x")

Layer = Callable[[Tensor], Tensor]


class Case(NamedTuple):
    """One row of the table.

    Args:
        norm: Name in the catalogue.
        native: The layer of torch it is measured against.
        shape: Of the input.
        channels_last: Its layout.
        labels: Of the domains: ``mixed`` (equal parts in turn), ``shuffled`` (equal parts in a
            random order), ``sorted`` or ``one``.
        target: Highest ratio that is accepted.
        training: Forward and backward in training mode; otherwise the forward pass alone.
    """

    norm: str
    native: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    channels_last: bool
    labels: str
    target: float
    training: bool = True

    @property
    def title(self) -> str:
        layout = "channels_last" if self.channels_last else "NCHW" if len(self.shape) == 4 else ""
        kind = "train" if self.training else "eval forward"
        size = "×".join(map(str, self.shape))
        return " ".join(f"{self.norm} {kind} {self.labels} {layout} {size}".split())

    @property
    def domain(self) -> Tensor:
        turn = torch.arange(self.shape[0]) % NUM_DOMAINS
        if self.labels == "shuffled":
            return turn[torch.randperm(len(turn), generator=torch.Generator().manual_seed(0))]
        return {"mixed": turn, "sorted": turn.sort().values, "one": torch.zeros_like(turn)}[
            self.labels
        ]


def instance(num_features: int) -> nn.Module:
    return nn.InstanceNorm2d(num_features, affine=True)


def group(num_features: int) -> nn.Module:
    return nn.GroupNorm(32, num_features)


def cases() -> Iterator[Case]:
    for shape in SHAPES:
        small = shape[-1] == 7
        for channels_last in (False, True):
            yield Case(
                "cin", instance, shape, channels_last, "mixed", 0.6 if channels_last else 0.8
            )
        for channels_last in (False, True):
            target = (2.0 if small else 1.3) if channels_last else 1.0
            for labels in ("mixed", "shuffled", "sorted"):
                yield Case("dsbn", nn.BatchNorm2d, shape, channels_last, labels, target)
            yield Case("dsbn", nn.BatchNorm2d, shape, channels_last, "one", 1.05)
            most = (4.0 if small else 2.2) if channels_last else 1.5
            yield Case("auto_bn", nn.BatchNorm2d, shape, channels_last, "mixed", most)
        for channels_last in (False, True):
            target = 1.1 if channels_last else 1.5 if small else 1.2
            yield Case("dsbn", nn.BatchNorm2d, shape, channels_last, "mixed", target, False)
        if "cgn" in CATALOGUE:
            yield Case("cgn", group, shape, False, "mixed", 1.15)
    if "cln" in CATALOGUE:
        yield Case("cln", nn.LayerNorm, (16, 197, 384), False, "mixed", 2.0)


def layers_of(case: Case, stack: ExitStack) -> dict[str, tuple[nn.Module, Layer]]:
    """Ours, the native layer twice, and the usual way where there is one.

    The condition of ours is set until the stack is left: a model sets it once for all its layers.
    """
    features = case.shape[-1] if len(case.shape) == 3 else case.shape[1]
    domain = case.domain
    ours = create_norm(case.norm, features, NUM_DOMAINS)
    ours.statistics.tokens = len(case.shape) == 3
    native, control = case.native(features), case.native(features)
    stack.enter_context(ours.slot.holding(Condition(domain=domain)))
    layers: dict[str, tuple[nn.Module, Layer]] = {"ours": (ours, ours), "native": (native, native)}
    layers["control"] = (control, control)
    usual = {"cin": InstanceNormThenAffine, "dsbn": MaskPerDomain}.get(case.norm)
    if usual is not None:
        module = usual(features, NUM_DOMAINS)
        layers["usual"] = (module, lambda x: module(x, domain))
    for module, _ in layers.values():
        module.train(case.training)
    return layers


def step(module: nn.Module, layer: Layer, x: Tensor, weight: Tensor | None) -> Callable[[], None]:
    """Forward and backward with gradients for x and parameters; forward alone without weight."""
    if weight is None:
        return torch.inference_mode()(lambda: layer(x))

    parameters = list(module.parameters())

    def both() -> None:
        leaf = x.detach().requires_grad_()
        layer(leaf).backward(weight)
        for parameter in parameters:  # not module.zero_grad(), which walks through the modules
            parameter.grad = None

    return both


def measure(case: Case, budget: float) -> tuple[str, ...]:
    """One row of the table."""
    torch.manual_seed(0)
    x = torch.randn(case.shape)
    if case.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn_like(x) if case.training else None
    with ExitStack() as stack:
        layers = layers_of(case, stack)
        steps = {name: step(module, layer, x, weight) for name, (module, layer) in layers.items()}
        times = interleaved(steps, budget)
        kept = [""] * 2
        if case.training:
            kept = [f"{kept_share(*layers[name], x):.3f}" for name in ("ours", "native")]
    found = ratio(times, "ours", "native")
    usual = f"{ratio(times, 'usual', 'native'):.2f}" if "usual" in times else ""
    control = f"{ratio(times, 'control', 'native'):.2f}"
    return case.title, f"{found:.2f}", verdict(found, case.target), control, usual, *kept


def kept_share(module: nn.Module, layer: Layer, x: Tensor) -> float:
    """Bytes kept for backward beyond x and the layer's own tensors, as a share of x."""
    leaf = x.detach().requires_grad_()
    own = [leaf, *module.parameters(), *module.buffers()]
    return saved_bytes(lambda: layer(leaf), own) / (x.numel() * x.element_size())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.norms", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time, more noise")
    parser.add_argument("--only", default="", help="only cases whose title holds this text")
    arguments = parser.parse_args()
    prepare()
    budget = 0.1 if arguments.quick else 1.0
    chosen = [case for case in cases() if arguments.only in case.title]
    rows = [measure(case, budget) for case in chosen]
    print(render(HEAD, rows, arguments.markdown))


if __name__ == "__main__":
    main()
