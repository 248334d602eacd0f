"""What following a stream is worth: a finished source model on images that change their domain.

``python -m tests.benchmarks.streams RUN [--order ...] [--depths ...]`` prints Markdown; RUN is what
``domainnorm run RECIPE method=source_only encoder=style`` leaves. The stream is made of images of
the target domains, and of the source's test images before, between and after them: each visit in
random order (``visits``), or in that of the files (``files``: a film, or class after class), or all
of them in random order (``shuffled``). The seed of the stage draws. Every way predicts a batch
before it learns from it. *tent*: statistics of the batch, one step of Adam (1e-3) per batch on
scale and shift. *bn*: one running average (momentum 0.1) of the moments of all batches, scale and
shift of the source. *ours*: `StreamAdapter`. Target labels are used for the table alone.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from domainnorm.backbones import DomainModel, domain_parameters
from domainnorm.data.view import DomainView
from domainnorm.errors import DomainNormError
from domainnorm.losses import entropy_loss
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.run_folder import read_folder
from domainnorm.run.stage import WEIGHTS, Bench, set_up
from domainnorm.streams import StreamAdapter
from domainnorm.tasks import Task
from tests.benchmarks.conditions import cell
from tests.benchmarks.table import render
from tests.benchmarks.timer import prepare

Predict = Callable[[Tensor], Tensor]
ORDERS = ("visits", "files", "shuffled")


def streams_of(bench: Bench, order: str, limit: int) -> DomainView:
    """The images in the order of the stream."""
    records, roles = bench.parts.dataset.records, bench.stage.roles
    of_source = [
        n for n, one in enumerate(records) if one.domain in roles.source and one.split == "test"
    ]
    of_targets = [
        spaced([n for n, one in enumerate(records) if one.domain == name], limit)
        for name in roles.target
    ]
    of_source = spaced(of_source, limit * (len(of_targets) + 1))
    generator = torch.Generator().manual_seed(bench.stage.seed)
    if order == "visits":
        of_source, *of_targets = (drawn(some, generator) for some in (of_source, *of_targets))
    visits = len(of_targets) + 1
    parts = [
        of_source[len(of_source) * k // visits :][: len(of_source) // visits] for k in range(visits)
    ]
    positions = list(parts[0])
    for targets, part in zip(of_targets, parts[1:], strict=True):
        positions += [*targets, *part]
    if order == "shuffled":
        positions = drawn(positions, generator)
    names = bench.data.domain_names
    pipelines = dict.fromkeys(names, bench.data.evaluation_pipeline)
    return DomainView(
        bench.parts.dataset, positions, domain_names=names, labelled=names, pipelines=pipelines
    )


def drawn(positions: list[int], generator: torch.Generator) -> list[int]:
    return [positions[n] for n in torch.randperm(len(positions), generator=generator)]


def spaced(positions: list[int], limit: int) -> list[int]:
    """At most ``limit`` of them, evenly over the list, in order."""
    return (
        [positions[n * len(positions) // limit] for n in range(limit)]
        if len(positions) > limit
        else positions
    )


def source_only(model: DomainModel, task: Task, source: str) -> Predict:
    label = model.domain_names.index(source)
    return lambda image: task.predict(model, image, torch.full((len(image),), label))


def bn(model: DomainModel, task: Task, source: str) -> Predict:
    predict = source_only(model, task, source)

    def step(image: Tensor) -> Tensor:
        output = predict(image)
        for norm in model.norms():
            norm.statistics.train()
        with torch.no_grad():
            model(image, source)
        model.eval()
        return output

    return step


def tent(model: DomainModel, task: Task, source: str) -> Predict:
    model.requires_grad_(False)
    chosen = domain_parameters(model)
    optimizer = torch.optim.Adam(chosen, lr=1e-3)
    for parameter in chosen:
        parameter.requires_grad_(True)
    for norm in model.norms():
        norm.statistics.train()

    def step(image: Tensor) -> Tensor:
        with torch.enable_grad():
            output: Tensor = model(image, source)
            loss = entropy_loss(output)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return output.detach()

    return step


class Ours:
    """`StreamAdapter`, and what it did."""

    def __init__(self, model: DomainModel, task: Task, source: str, **options: float) -> None:
        self.adapter = StreamAdapter(model, task, **options)  # type: ignore[arg-type]
        self.alarms: list[int] = []

    def __call__(self, image: Tensor) -> Tensor:
        before = self.adapter.num_images
        step = self.adapter(image)
        if step.alarm is not None:
            self.alarms.append(before + step.alarm)
        return step.output


WAYS: dict[str, Callable[[DomainModel, Task, str], Predict]] = {
    "source-only": source_only,
    "bn": bn,
    "tent": tent,
    "ours": Ours,
    "ours, entropy": partial(Ours, lr=1e-3),
}


def measure(bench: Bench, order: str, limit: int, batch_size: int) -> dict[str, dict[str, float]]:
    """Way -> domain -> metric, over the images of the stream."""
    view, task = streams_of(bench, order, limit), bench.method.task
    names, found, seconds = view.domains, {}, {}
    for way, make in WAYS.items():
        model = copy.deepcopy(bench.method.model).eval()
        predict = make(model, task, bench.stage.roles.source[0])
        stores = {label: task.store() for label in sorted(set(names.tolist()))}
        seconds[way] = 0.0
        for batch in DataLoader(view, batch_size=batch_size):
            started = time.thread_time()
            output = predict(batch["image"])
            seconds[way] += time.thread_time() - started
            for label, store in stores.items():
                own = batch["domain"] == label
                if bool(own.any()):
                    store.update(output[own], batch["target"][own], batch["index"][own])
        options = task.metric_options()
        found[way] = {
            bench.data.domain_names[label]: store.compute().metrics(**options)[task.metric]
            for label, store in stores.items()
        }
        found[way]["mean"] = statistics.mean(found[way].values())
        if isinstance(predict, Ours):
            opened = ", ".join(predict.adapter.rows) or "none"
            print(f"seed {bench.stage.seed}, {way}: alarms at {predict.alarms}; opened {opened}")
    cost = {way: f"{spent / seconds['source-only']:.2f}" for way, spent in seconds.items()}
    print(f"seed {bench.stage.seed}, CPU time, of a prediction alone: {cost}")
    return found


def benches(run: Path) -> Iterator[Bench]:
    recipe, _ = read_folder(run)
    parts = Parts(recipe)
    for stage in plan_stages(recipe):
        if stage.method.name == "source_only" and (run / stage.key / WEIGHTS).exists():
            yield set_up(parts, stage, run, finished=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.streams", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--order", choices=ORDERS, default="visits")
    parser.add_argument("--limit", type=int, default=400, help="images of a visit")
    parser.add_argument("--batch-size", type=int, default=8)
    text = "further depths of adaptation, a row each"
    parser.add_argument("--depths", type=float, nargs="*", default=[], help=text)
    arguments = parser.parse_args()
    prepare()
    for depth in arguments.depths:
        WAYS[f"ours, depth {depth:g}"] = partial(Ours, depth=depth)
    seeds: list[Mapping[str, Mapping[str, float]]] = [
        measure(bench, arguments.order, arguments.limit, arguments.batch_size)
        for bench in benches(arguments.run)
    ]
    if not seeds:
        raise DomainNormError(f"{arguments.run}: no finished stage of 'source_only'")
    columns: Sequence[str] = list(seeds[0]["ours"])
    rows = [
        (way, *(cell([seed[way][column] for seed in seeds]) for column in columns)) for way in WAYS
    ]
    print(render(("", *columns), rows, markdown=True))


if __name__ == "__main__":
    main()
