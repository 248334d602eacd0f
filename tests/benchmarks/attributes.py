"""Domains from attributes with gaps: a finished run tested under what a table says of its images.

``python -m tests.benchmarks.attributes [--method M] RUN`` prints Markdown. Each image gets an
attribute that names its domain (*stain*) and a noisy one (*hour*: normal, spread 3, means 3 apart),
both missing at random for 30 % of the images that the encoder learns from. Then the test images are
told and predicted with 0, 30 and 100 % missing. Values and gaps are drawn by the seed of the stage.

With ``--text`` the attribute names a device of the domain's own maker (*device*), or is a report of
a few sentences that name it (*report*), missing for 30 % again, and the encoders `metadata` and
`text` are told of the test images what training had, another model of the same maker, a letter
wrong in the maker's name, both, or a maker that neither domain has.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.data import DomainDataset
from domainnorm.encoders import create_encoder
from domainnorm.evaluation import DomainsTold
from domainnorm.run.models import teach_encoder
from domainnorm.run.stage import Bench
from tests.benchmarks.conditions import benches, cell
from tests.benchmarks.descriptions import ATTRIBUTES, CHANGES
from tests.benchmarks.table import render
from tests.benchmarks.timer import prepare

SETS = (("stain",), ("stain", "hour"), ("hour",))
IN_TRAINING, IN_TEST = 0.3, (0.0, 0.3, 1.0)
KEYS = ("known of the image", "missing in the test")
KEYS_OF_TEXT = ("known of the image", "encoder", "new in the test")
Values = dict[str, float]


def noted(dataset: DomainDataset, missing: float, seed: int) -> DomainDataset:
    """The dataset with a stain and an hour of each image, each missing with a probability."""
    found = copy.copy(dataset)
    draw = np.random.default_rng((seed, 0))
    hours = draw.normal(0, 3, len(dataset.records))
    gaps = np.random.default_rng((seed, 1, round(100 * missing))).random((len(hours), 2)) < missing
    found.records = []
    for record, hour, gap in zip(dataset.records, hours, gaps, strict=True):
        row = dataset.domain_names.index(record.domain)
        values = {"stain": record.domain, "hour": f"{9 + 3 * row + hour:.1f}"}
        known = {
            name: "" if lost else value
            for (name, value), lost in zip(values.items(), gap, strict=True)
        }
        found.records.append(replace(record, metadata=known))
    return found


def described(
    dataset: DomainDataset, name: str, change: str, missing: float, seed: int
) -> DomainDataset:
    """The dataset with a text about the device of each image, missing with a probability."""
    found = copy.copy(dataset)
    draw = np.random.default_rng((seed, CHANGES.index(change)))
    found.records = []
    for record in dataset.records:
        row = dataset.domain_names.index(record.domain)
        text = ATTRIBUTES[name](row, change, draw)
        known = {name: "" if draw.random() < missing else text}
        found.records.append(replace(record, metadata=known))
    return found


@torch.inference_mode()
def tested(bench: Bench, way: str) -> Values:
    """Accuracy of each domain, and the share of images whose domain is told right."""
    model, task, values, shares = bench.method.model.eval(), bench.method.task, {}, []
    for name, loader in zip(bench.data.test_domains, bench.data.test_dataloader(), strict=True):
        store, told = task.store(), DomainsTold()
        for batch in loader:
            given = conditioned(model, way, batch)
            output = task.predict(model, batch["image"], **given)
            store.update(output, batch["target"], batch["index"])
            if way == "mixture":
                told.update(model.estimate_of(batch), batch["domain"])
        values[name] = store.compute().metrics(**task.metric_options())[task.metric]
        if way == "mixture":
            shares.append(told.compute()["domain_accuracy"])
    return values | ({"told": sum(shares) / len(shares)} if shares else {})


def conditioned(model: DomainModel, way: str, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if way == "true":
        return {"domain": batch["domain"]}
    if way == "none":
        count, size = len(batch["domain"]), model.num_domains
        return {"weights": torch.full((count, size), 1 / size)}
    return {"weights": model.estimate_of(batch).weights}


def measure(bench: Bench) -> Iterator[tuple[tuple[str, ...], Values]]:
    """(What is known, how much of it is missing in the test) and what came of it."""
    model, data, seed = bench.method.model, bench.data, bench.stage.seed
    yield ("true domain", ""), tested(bench, "true")
    yield ("none", ""), tested(bench, "none")
    yield ("pixels, `style`", ""), tested(bench, "mixture")
    plain = data.dataset
    for names in SETS:
        data.attributes = list(names)
        data.dataset = noted(plain, IN_TRAINING, seed)
        torch.manual_seed(seed)
        model.attach_encoder(create_encoder("metadata", model.num_domains))
        teach_encoder(model, data, seed)
        for missing in IN_TEST:
            data.dataset = noted(plain, missing, seed)
            yield (", ".join(names), f"{missing:.0%}"), tested(bench, "mixture")


def measure_text(bench: Bench) -> Iterator[tuple[tuple[str, ...], Values]]:
    """(Attribute, encoder, what is new in the test) and what came of it."""
    model, data, seed = bench.method.model, bench.data, bench.stage.seed
    yield ("true domain", "", ""), tested(bench, "true")
    yield ("none", "", ""), tested(bench, "none")
    plain = data.dataset
    for name in ATTRIBUTES:
        data.attributes = [name]
        for kind in ("metadata", "text"):
            data.dataset = described(plain, name, "", IN_TRAINING, seed)
            torch.manual_seed(seed)
            model.attach_encoder(create_encoder(kind, model.num_domains))
            teach_encoder(model, data, seed)
            for change in CHANGES:
                data.dataset = described(plain, name, change, 0.0, seed + 1000)
                yield (name, f"`{kind}`", change or "nothing"), tested(bench, "mixture")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.attributes", description=__doc__
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--method", default="joint")
    parser.add_argument("--text", action="store_true", help="descriptions of devices instead")
    arguments = parser.parse_args()
    prepare()
    ways = measure_text if arguments.text else measure
    seeds = [dict(ways(bench)) for bench in benches(arguments.run, arguments.method, "")]
    if not seeds:
        raise SystemExit(f"{arguments.run}: no finished stage of '{arguments.method}'")
    keys = KEYS_OF_TEXT if arguments.text else KEYS
    print(render(*table(seeds, keys), markdown=True))


def table(
    seeds: Sequence[Mapping[tuple[str, ...], Values]], keys: Sequence[str]
) -> tuple[Sequence[str], list[Sequence[str]]]:
    domains = [name for name in next(iter(seeds[0].values())) if name != "told"]
    rows = []
    for key in seeds[0]:
        told = cell([seed[key]["told"] for seed in seeds]) if "told" in seeds[0][key] else ""
        cells = [cell([seed[key][domain] for seed in seeds]) for domain in domains]
        rows.append((*key, told, *cells))
    return (*keys, "domain told right", *domains), rows


if __name__ == "__main__":
    main()
