"""Images per second of the loaders of recipes, beside what their training step takes.

``python -m tests.benchmarks.loading RECIPE [key=value ...] [--markdown]``; the data of the recipe
has to be there (``DOMAINNORM_DATA``). One thread trains.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from itertools import islice

import torch

from domainnorm.recipe import Recipe, load_recipe
from domainnorm.run.machine import keep_freed_memory
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from tests.benchmarks.table import render

_SECONDS = 8.0


def loaded(recipe: Recipe, workers: int, cache: str | None) -> float:
    """Images per second of a training loader, after one pass that fills the cache."""
    parts = Parts(replace(recipe, data=replace(recipe.data, num_workers=workers, cache=cache)))
    stage = plan_stages(recipe)[0]
    data = parts.data(stage, parts.model(stage, stored=True))
    loader = data.train_dataloader()
    for _ in loader:
        pass
    images, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < _SECONDS:
        images += sum(len(batch["image"]) for batch in loader)
    return images / spent


def trained(recipe: Recipe) -> float:
    """Images per second of forward, loss and backward on batches that are loaded already."""
    parts, stage = Parts(recipe), plan_stages(recipe)[0]
    model = parts.model(stage, stored=True)
    data = parts.data(stage, model)
    method = parts.method(stage, model, data).train()
    batches = list(islice(data.train_dataloader(), 4))

    def step(batch: dict[str, torch.Tensor]) -> int:
        logits = method(batch["image"], batch["domain"])
        method.task.loss(logits, batch["target"]).backward()
        method.zero_grad()
        return len(batch["image"])

    for batch in batches:
        step(batch)
    images, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < _SECONDS:
        images += sum(map(step, batches))
    return images / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="+", metavar="RECIPE [key=value]")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.words[0], arguments.words[1:])
    torch.set_num_threads(1)
    returned = trained(recipe)
    keep_freed_memory()  # cannot be taken back, so the step without it comes first
    step = trained(recipe)
    rows = [
        ["training step, one thread", f"{step:.1f}", "1.0"],
        ["the same, freed memory returned", f"{returned:.1f}", f"{returned / step:.2f}"],
    ]
    with tempfile.TemporaryDirectory() as folder:
        for workers in (0, 1, 2):
            for cache in (None, folder):
                found = loaded(recipe, workers, cache)
                name = f"loader, {workers} workers{', cache' if cache else ''}"
                rows.append([name, f"{found:.0f}", f"{found / step:.1f}"])
    print(render([recipe.name, "images / s", "of the step"], rows, arguments.markdown))


if __name__ == "__main__":
    main()
