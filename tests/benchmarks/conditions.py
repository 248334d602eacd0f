"""What an estimated domain is worth: a finished run tested under true, estimated and wrong domains.

``python -m tests.benchmarks.conditions [--method M] [--transfer T] RUN`` prints Markdown. Stages of
a run without an encoder get a style encoder, fitted to the images that the stage could see. *wrong*
is the mean over the other domains of the transfer, *none* the model without any domain
(``unseen="mean"``).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.evaluation import DomainsTold
from domainnorm.recipe import Named, Recipe
from domainnorm.registry import ENCODERS
from domainnorm.run.models import teach_encoder
from domainnorm.run.parts import Parts
from domainnorm.run.plan import Stage, plan_stages
from domainnorm.run.run_folder import WEIGHTS, read_folder
from domainnorm.run.stage import Bench, set_up
from tests.benchmarks.table import render
from tests.benchmarks.timer import interleaved, prepare, ratio

WAYS = ("true", "estimate", "mixture", "wrong", "none")
HEAD = ("domain", *WAYS, "told right", "at home")


def with_encoder(recipe: Recipe) -> Recipe:
    if recipe.encoder is not None:
        return recipe
    options = {name: item.default for name, item in ENCODERS.entry("style").parameters.items()}
    return replace(recipe, encoder=Named("style", options), unseen="mixture")


def benches(run: Path, method: str, transfer: str) -> Iterator[Bench]:
    recipe, _ = read_folder(run)
    parts = Parts(with_encoder(recipe))
    for stage in plan_stages(parts.recipe):
        wanted = stage.method.name == method and transfer in stage.key
        if wanted and (run / stage.key / WEIGHTS).exists():
            yield taught(parts, stage, run)


def taught(parts: Parts, stage: Stage, run: Path) -> Bench:
    bench = set_up(parts, stage, run, finished=True)
    model = bench.method.model.eval()
    assert model.encoder is not None
    if not bool(model.encoder.gaussians.known.any()):
        teach_encoder(model, bench.data, stage.seed)
    return bench


def predicted(bench: Bench, way: str, image: Tensor, domain: Tensor) -> Tensor:
    model, task = bench.method.model, bench.method.task
    if way in ("estimate", "mixture"):
        given = model.conditioned(domain, model.estimate(image), way)  # type: ignore[arg-type]
        return task.predict(model, image, **given)
    if way == "none":
        former, model.unseen = model.unseen, "mean"
        try:
            return task.predict(model, image, torch.full_like(domain, -1))
        finally:
            model.unseen = former
    return task.predict(model, image, domain)


@torch.inference_mode()
def measure(bench: Bench) -> dict[str, dict[str, float]]:
    """Domain -> column -> value."""
    found: dict[str, dict[str, float]] = {}
    model, task = bench.method.model, bench.method.task
    for name, loader in zip(bench.data.test_domains, bench.data.test_dataloader(), strict=True):
        own = model.domain_names.index(name)
        others = [row for row in range(model.num_domains) if row != own]
        stores = {way: task.store() for way in WAYS if way != "wrong"}
        wrong = {row: task.store() for row in others}
        told = DomainsTold()
        for batch in loader:
            image, domain, seen = batch["image"], batch["domain"], (batch["target"], batch["index"])
            for way, store in stores.items():
                store.update(predicted(bench, way, image, domain), *seen)
            for row, store in wrong.items():
                store.update(predicted(bench, "true", image, torch.full_like(domain, row)), *seen)
            told.update(model.estimate(image), domain)
        options = task.metric_options()
        values = {
            way: store.compute().metrics(**options)[task.metric] for way, store in stores.items()
        }
        of_wrong = [store.compute().metrics(**options)[task.metric] for store in wrong.values()]
        values["wrong"] = statistics.mean(of_wrong)
        shares = told.compute()
        values["told right"], values["at home"] = shares["domain_accuracy"], shares["domain_known"]
        found[name] = values
    return found


def cost(model: DomainModel, image: Tensor) -> str:
    """Size and time of the encoder beside those of the network."""
    encoder = model.encoder
    assert encoder is not None
    domain = torch.zeros(len(image), dtype=torch.long)
    with torch.inference_mode():
        times = interleaved(
            {"encoder": lambda: encoder(image), "network": lambda: model(image, domain)}, 2.0
        )
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    rows = (getattr(encoder.gaussians, name)[0] for name in encoder.gaussians.row_names)
    per_domain = sum(row.numel() * row.element_size() for row in rows)
    return (
        f"encoder: {parameters:,} parameters, {per_domain} bytes per domain, "
        f"{ratio(times, 'encoder', 'network'):.1%} of the network's forward pass "
        f"({len(image)} images of {image.shape[2]} × {image.shape[3]})"
    )


def cell(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.conditions", description=__doc__
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--method", default="joint")
    parser.add_argument("--transfer", default="", help="part of the name of its folder")
    arguments = parser.parse_args()
    prepare()
    seeds: list[Mapping[str, Mapping[str, float]]] = []
    bench = None
    for bench in benches(arguments.run, arguments.method, arguments.transfer):
        seeds.append(measure(bench))
    if bench is None:
        raise SystemExit(f"{arguments.run}: no finished stage of '{arguments.method}'")
    rows = [
        (domain, *(cell([seed[domain][column] for seed in seeds]) for column in HEAD[1:]))
        for domain in seeds[0]
    ]
    print(render(HEAD, rows, markdown=True))
    batch = next(iter(bench.data.test_dataloader()[0]))
    print(f"{len(seeds)} seeds; {cost(bench.method.model, batch['image'][:8])}")


if __name__ == "__main__":
    main()
