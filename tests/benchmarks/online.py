"""Methods that adapt while they predict, against predicting: ``python -m tests.benchmarks.online``.

A batch of 16 random images of 96 px through tf_efficientnet_lite0 (dsbn, four classes,
channels_last) in one process; memory is what autograd keeps for backward, in images of the input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from domainnorm import adapt_online, create_model
from domainnorm.registry import METHODS
from tests.benchmarks.timer import interleaved, prepare, ratio, saved_bytes

NAMES = [name for name in METHODS.names() if METHODS.load(name).protocol == "online"]
# Every image is reliable, so that every step is made; fewer views of the teacher than 32.
GIVEN: dict[str, dict[str, Any]] = {
    "eata": {"fisher_weight": 0.0, "margin": 1.0, "redundancy": 2.0},
    "sar": {"margin": 1.0, "floor": 0.0},
    "deyo": {"margin": 1.0, "drop": -1.0},
    "cotta": {"threshold": 0.0},
    "note": {"memory": 16},
    "rotta": {"memory": 16},
}


def model_of() -> Any:
    torch.manual_seed(0)
    model = create_model("tf_efficientnet_lite0", 4, "dsbn", ["source", "target"])
    return model.to(memory_format=torch.channels_last)


def main() -> None:
    prepare()
    image = torch.randn(16, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    plain = model_of().eval()

    @torch.no_grad()
    def forward() -> None:
        plain(image, "target")

    runs: dict[str, Callable[[], Any]] = {"forward": forward}
    kept: dict[str, float] = {}
    for name in sys.argv[1:] or NAMES:
        stream = adapt_online(model_of(), name, domain="target", **GIVEN.get(name, {}))
        runs[name] = lambda stream=stream: stream(image)  # type: ignore[misc]
        known = [*stream.method.parameters(), image]
        kept[name] = saved_bytes(runs[name], known) / image.nbytes
    times = interleaved(runs, 12.0, 9)
    print("| method | time / forward | kept for backward, inputs |\n|---|---:|---:|")
    for name, memory in kept.items():
        print(f"| `{name}` | {ratio(times, name, 'forward'):.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
