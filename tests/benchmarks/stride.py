"""Sparse statistics: speed and error of moments from every k-th pixel, against all pixels.

Run with ``python -m tests.benchmarks.stride``; prints Markdown.
"""

import argparse
import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.norms import ConditionalNorm, create_norm
from tests.benchmarks.table import render
from tests.benchmarks.timer import interleaved, prepare, ratio

SHAPE, NUM_DOMAINS, STRIDES = (16, 64, 56, 56), 4, (1, 2, 4)


def apply(norm: ConditionalNorm, x: Tensor) -> Tensor:
    domain = torch.arange(len(x)) % NUM_DOMAINS
    with norm.slot.holding(Condition(domain=domain)):
        return norm(x)


def measure(name: str, channels_last: bool) -> list[str]:
    x = F.avg_pool2d(torch.randn(SHAPE), 3, 1, 1)  # neighbouring pixels are alike, as in images
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    grad = torch.randn_like(x)
    norms = {k: create_norm(name, SHAPE[1], NUM_DOMAINS, stride=k) for k in STRIDES}
    exact = apply(copy.deepcopy(norms[1]), x)
    errors = [(apply(copy.deepcopy(norms[k]), x) - exact).square().mean().sqrt() for k in STRIDES]

    def step(norm: ConditionalNorm) -> None:
        apply(norm, x.detach().requires_grad_()).backward(grad)

    functions = {str(k): lambda norm=norms[k]: step(norm) for k in STRIDES}
    times = interleaved(functions, budget=2.0)
    ratios = [f"{ratio(times, str(k), '1'):.2f}" for k in STRIDES[1:]]
    layout = "channels_last" if channels_last else "NCHW"
    return [name, layout, *ratios, *(f"{float(error.detach()):.3f}" for error in errors[1:])]


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m tests.benchmarks.stride", description=__doc__
    ).parse_args()
    prepare()
    torch.manual_seed(0)
    heads = ["norm", "layout", "ratio, stride 2", "ratio, stride 4", "rms error, 2", "rms error, 4"]
    rows = [measure(name, last) for name in ("cin", "dsbn") for last in (False, True)]
    print(render(heads, rows, markdown=True))


if __name__ == "__main__":
    main()
