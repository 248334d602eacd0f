"""Training steps of methods against source-only: ``python -m tests.benchmarks.methods [NAME ...]``.

A step is losses, backward, AdamW and the teacher's update on the network of recipes/medical/wbc_seg
(tf_efficientnet_lite0, Unet, cin, channels_last), random images of 96 px. A batch has 8 images: of
the source alone, or 4 of it and 4 of the target. Memory is what autograd keeps for backward.
Of a method with variants, each is timed; a run trains all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from domainnorm.methods import Method, Roles
from domainnorm.registry import METHODS
from domainnorm.tasks.segmentation import Segmentation
from tests.benchmarks.timer import interleaved, prepare, ratio, saved_bytes

ROLES = Roles(("source",), ("target",))
NAMES = ("default", "mean_teacher", "fixmatch", "dacs", "daformer", "mic")


def made(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    task = Segmentation(["background", "cytoplasm", "nucleus"], width=64)
    model = task.create_model("tf_efficientnet_lite0", "cin", ROLES.all)
    model = model.to(memory_format=torch.channels_last)
    method: Method = METHODS.load(name)(model, task, ROLES, **options)
    method.on_fit_start()
    return method.train()


def variants(name: str) -> dict[str, Method]:
    method = made(name)
    found = {f"{name}, {word}": made(name, **own) for word, own in method.variants.items()}
    return found or {name: method}


def batch_of(method: Method) -> dict[str, torch.Tensor]:
    labelled = torch.arange(8) < (4 if method.unlabelled else 8)
    image, strong = torch.randn(2, 8, 3, 96, 96).unbind()
    layout = {"memory_format": torch.channels_last}
    return {
        "image": image.contiguous(**layout),
        "strong": strong.contiguous(**layout),
        "target": torch.where(labelled[:, None, None], torch.randint(0, 3, (8, 96, 96)), -1),
        "domain": (~labelled).long(),
        "labelled": labelled,
    }


def step_of(method: Method) -> Callable[[], None]:
    batch = batch_of(method)
    optimizer = torch.optim.AdamW(p for p in method.parameters() if p.requires_grad)

    def step() -> None:
        optimizer.zero_grad()
        sum(method.losses(batch).values()).backward()
        optimizer.step()
        if method.teacher is not None:
            method.teacher_steps += 1
            method.teacher.update(method.model, int(method.teacher_steps))

    return step


def kept_of(method: Method) -> int:
    batch = batch_of(method)
    known = [*method.parameters(), *batch.values()]
    return saved_bytes(lambda: sum(method.losses(batch).values()), known)


def main() -> None:
    prepare()
    methods: dict[str, Method] = {}
    for asked in ("source_only", *(sys.argv[1:] or NAMES)):
        methods |= variants(asked)
    times = interleaved({name: step_of(method) for name, method in methods.items()}, 12.0, 9)
    kept = {name: kept_of(method) for name, method in methods.items()}
    print("| method | time / source_only | kept / source_only |\n|---|---:|---:|")
    for name in methods:
        memory = kept[name] / kept["source_only"]
        print(f"| `{name}` | {ratio(times, name, 'source_only'):.2f} | {memory:.2f} |")


if __name__ == "__main__":
    main()
