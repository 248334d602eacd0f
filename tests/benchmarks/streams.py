"""What opened rows are worth: a finished source model on images that change their domain.

``python -m tests.benchmarks.streams RUN [WAY ...] [--order ...]`` prints Markdown; RUN is what
``domainnorm run RECIPE method=source_only encoder=style`` leaves, a WAY a method of streams with
its options, ``alpha_bn,memory=stream,share=layers``. The stream is made of images of the target
domains, and of the source's test images before, between and after them: each visit in random order
(``visits``), or in that of the files (``files``: a film, or class after class), or all of them in
random order (``shuffled``). The seed of the stage draws. Each way has one row for all images, that
of the first target, and with ``rows: opened`` those that it opens. Target labels are used for the
table alone.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader

from domainnorm.data.view import DomainView
from domainnorm.errors import DomainNormError
from domainnorm.methods import OnlineModel, adapt_online
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.run_folder import WEIGHTS, read_folder
from domainnorm.run.stage import Bench, set_up
from tests.benchmarks.conditions import cell
from tests.benchmarks.table import render
from tests.benchmarks.timer import prepare

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


def parsed(way: str) -> tuple[str, dict[str, object]]:
    name, *options = way.split(",")
    pairs = (option.split("=", 1) for option in options)
    return name, {key: yaml.safe_load(value) for key, value in pairs}


def following(bench: Bench, way: str, opened: bool) -> OnlineModel:
    name, options = parsed(way)
    model = copy.deepcopy(bench.method.model).eval()
    options |= {"rows": "opened"} if opened else {"domain": bench.stage.roles.target[0]}
    task: Any = bench.method.task
    return adapt_online(model, name, task=task, **options)  # type: ignore[arg-type]


def measure(
    bench: Bench, order: str, limit: int, batch_size: int, ways: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Way -> domain -> metric, over the images of the stream."""
    view, task = streams_of(bench, order, limit), bench.method.task
    model, source = bench.method.model.eval(), bench.stage.roles.source[0]
    predict: dict[str, Callable[[Tensor], Tensor]] = {
        "source-only": lambda image: task.predict(
            model, image, torch.full((len(image),), model.domain_names.index(source))
        )
    }
    for way in ways:
        for opened in (False, True):
            predict[f"{way}, {'opened' if opened else 'one row'}"] = following(bench, way, opened)
    names, found, seconds = view.domains, {}, dict.fromkeys(predict, 0.0)
    for way, step in predict.items():
        stores = {label: task.store() for label in sorted(set(names.tolist()))}
        torch.manual_seed(bench.stage.seed)
        for batch in DataLoader(view, batch_size=batch_size):
            started = time.thread_time()
            with torch.no_grad():
                output = step(batch["image"])
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
        if isinstance(step, OnlineModel) and step.opened:
            print(f"seed {bench.stage.seed}, {way}: {', '.join(step.opened)}", flush=True)
    cost = {way: f"{spent / seconds['source-only']:.2f}" for way, spent in seconds.items()}
    print(f"seed {bench.stage.seed}, CPU time, of a prediction alone: {cost}", flush=True)
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
    parser.add_argument("ways", nargs="*", metavar="WAY", default=["online"])
    arguments = parser.parse_args()
    prepare()
    asked = arguments.order, arguments.limit, arguments.batch_size, arguments.ways
    seeds: list[Mapping[str, Mapping[str, float]]] = [
        measure(bench, *asked) for bench in benches(arguments.run)
    ]
    if not seeds:
        raise DomainNormError(f"{arguments.run}: no finished stage of 'source_only'")
    columns: Sequence[str] = list(seeds[0]["source-only"])
    rows = [
        (way, *(cell([seed[way][column] for seed in seeds]) for column in columns))
        for way in seeds[0]
    ]
    print(render(("", *columns), rows, markdown=True))


if __name__ == "__main__":
    main()
