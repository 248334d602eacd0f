"""How well an encoder tells domains apart: ``python -m tests.benchmarks.encoders``.

Fitted to the training images of each dataset (at most 300 per domain), calibrated on the validation
split, tested on the test split (at most 200). Then once more for each domain without it: *noticed*
is the share of its test images that are then found to be of no known domain, *false alarms* that of
the known ones. The seed draws the images. ``DOMAINNORM_DATA`` and ``DOMAINNORM_WEIGHTS`` name the
folders of images and of weights. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from domainnorm.backbones import create_model
from domainnorm.data import DomainDataset
from domainnorm.data.dataset import Split
from domainnorm.data.datasets import Folder, FolderMasks
from domainnorm.encoders import DomainEncoder, create_encoder, fit_encoder
from domainnorm.evaluation import Predictions, seed_spread
from tests.benchmarks.images import draw, preprocessing_of
from tests.benchmarks.table import render
from tests.benchmarks.timer import interleaved, prepare, ratio

BACKBONE, SEEDS = "tf_efficientnet_lite0", (0, 1, 2)
KINDS = ("style", "backbone", "cnn", "cnn size=32")
BATCH = 64
NUMBERS: dict[Split, int] = {"train": 300, "val": 100, "test": 200}
SIZES = {"wbc/cls": 96, "camvid": 144, "digits": 32, "pacs": 96}
COSTS = (
    ("tf_efficientnet_lite0", 224, 8),
    ("tf_efficientnet_lite0", 224, 1),
    ("resnet50", 224, 4),
    ("tf_efficientnet_lite0", 96, 8),
    ("resnet10t", 32, 64),
)
HEAD = ("", "told right", "noticed when left out", "false alarms without it")
Images = Mapping[str, Tensor]


class Labelled:
    """Images of some domains with the label of each, in batches that mix domains."""

    def __init__(self, images: Images, chosen: Sequence[str], seed: int) -> None:
        rows = list(images)
        label = torch.cat([torch.full((len(images[n]),), rows.index(n)) for n in chosen])
        order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
        image = torch.cat([images[name] for name in chosen])[order]
        self._batches = list(zip(image.split(BATCH), label[order].split(BATCH), strict=True))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def drawn(dataset: DomainDataset, size: int, seed: int) -> dict[Split, Images]:
    like = preprocessing_of(create_model(BACKBONE, 0), size)
    found: dict[Split, Images] = {}
    for split, number in NUMBERS.items():
        found[split] = {
            name: draw(dataset, name, split, number=number, seed=seed, like=like).image
            for name in dataset.domain_names
        }
    return found


def create(kind: str, num_domains: int, network: nn.Module) -> DomainEncoder:
    """An encoder by its name, with sizes behind it: ``cnn size=32``."""
    name, *words = kind.split()
    options = {key: int(value) for key, _, value in (word.partition("=") for word in words)}
    return create_encoder(name, num_domains, network, **options)


def fitted(
    kind: str, images: Mapping[Split, Images], chosen: Sequence[str], seed: int
) -> DomainEncoder:
    network = create_model(BACKBONE, 0, pretrained=True).eval().backbone
    encoder = create(kind, len(images["train"]), network)
    training, held_out = (Labelled(images[split], chosen, seed) for split in ("train", "val"))
    fit_encoder(encoder, training, held_out, seed=seed)
    return encoder


@torch.no_grad()
def measure(kind: str, images: Mapping[Split, Images], seed: int) -> dict[str, tuple[float, ...]]:
    """Domain -> share told right, share noticed when left out, false alarms without it."""
    names = list(images["test"])
    encoder = fitted(kind, images, names, seed)
    right = {
        name: float((encoder(images["test"][name]).domain == row).float().mean())
        for row, name in enumerate(names)
    }
    found = {}
    for left_out in names:
        others = [name for name in names if name != left_out]
        encoder = fitted(kind, images, others, seed)
        unknown = [
            float((~encoder(images["test"][name]).is_known).float().mean())
            for name in (left_out, *others)
        ]
        found[left_out] = (right[left_out], unknown[0], sum(unknown[1:]) / len(others))
    return found


def rows_of(kind: str, root: str) -> Iterator[tuple[str, ...]]:
    size, dataset = SIZES[root], dataset_of(root)
    runs = [measure(kind, drawn(dataset, size, seed), seed) for seed in SEEDS]
    names = list(runs[0])
    means = [tuple(sum(run[n][k] for n in names) / len(names) for k in range(3)) for run in runs]
    yield (f"{root}, {size} px, {len(names)} domains", *map(spread, zip(*means, strict=True)))
    for name in names:
        yield (f"– {name}", *map(spread, zip(*(run[name] for run in runs), strict=True)))


@torch.no_grad()
def calibration(kind: str, images: Mapping[Split, Images], seed: int) -> tuple[float, ...]:
    """Temperature; NLL and ECE of the weights of all test images with it, and at temperature 1."""
    names = list(images["test"])
    encoder = fitted(kind, images, names, seed)
    temperature = float(encoder.gaussians.temperature)
    target = torch.cat([torch.full((len(images["test"][n]),), row) for row, n in enumerate(names)])
    found = [temperature]
    for used in (temperature, 1.0):
        encoder.gaussians.temperature.fill_(used)
        weights = torch.cat([encoder(images["test"][name]).weights for name in names])
        values = Predictions(weights, target, torch.arange(len(target))).metrics()
        found += [values["nll"], values["ece"]]
    return tuple(found)


def calibration_of(kind: str, root: str) -> tuple[str, ...]:
    dataset = dataset_of(root)
    runs = [calibration(kind, drawn(dataset, SIZES[root], seed), seed) for seed in SEEDS]
    return (root, *(spread(values, 3) for values in zip(*runs, strict=True)))


def dataset_of(root: str) -> DomainDataset:
    masks = root == "camvid"
    return FolderMasks(root=root, groups="sequences") if masks else Folder(root=root)


def spread(values: Sequence[float], digits: int = 2) -> str:
    one = seed_spread(list(values))
    return f"{one.mean:.{digits}f} ± {one.std:.{digits}f}"


def cost_of(kind: str, name: str, size: int, number: int) -> tuple[str, ...]:
    """Time of the encoder beside the forward pass of a network.

    Of one that decides within that pass, what it adds to it.
    """
    model = create_model(name, norm="dsbn", domains=["a", "b", "c", "d"]).eval()
    encoder = create(kind, 4, model.backbone)
    encoder.eval().gaussians.count.fill_(1)
    image, domain = torch.rand(number, 3, size, size), torch.zeros(number, dtype=torch.long)
    seen: list[Tensor] = []
    first = next(model.norms()).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(image, domain)
    first.remove()

    def estimate() -> object:
        if encoder.reads_backbone:
            return encoder.judge(encoder.reached(seen[0], number))
        return encoder(image)

    title = f"{kind}, {name}, {number} × {size} px"
    return compared(title, number, encoder, estimate, lambda: model(image, domain))


def compared(
    title: str,
    number: int,
    encoder: DomainEncoder,
    estimate: Callable[[], object],
    network: Callable[[], object],
) -> tuple[str, ...]:
    """A row of the table of costs."""
    with torch.inference_mode():
        times = interleaved({"encoder": estimate, "network": network}, 2.0)
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    return (
        title,
        f"{ratio(times, 'encoder', 'network'):.1%}",
        f"{statistics.median(times['encoder']) / number * 1e3:.2f} ms",
        f"{parameters:,}",
    )


def cost_of_attributes(kind: str, name: str, size: int, number: int) -> tuple[str, ...]:
    """Time of an encoder of two attributes beside the forward pass of a network."""
    model = create_model(name, norm="dsbn", domains=["a", "b", "c", "d"]).eval()
    encoder = create_encoder(kind, 4, model.backbone)
    known: dict[str, list[object]] = {
        "scanner": [f"scanner {n % 4} of the second floor" for n in range(64)],
        "hour": [n % 24 for n in range(64)],
    }
    fit_encoder(encoder, [(known, torch.arange(64) % 4)], [(known, torch.arange(64) % 4)])
    image, domain = torch.rand(number, 3, size, size), torch.zeros(number, dtype=torch.long)
    asked = {column: values[:number] for column, values in known.items()}
    title = f"{kind}, two attributes, {name}, {number} × {size} px"
    return compared(title, number, encoder, lambda: encoder(asked), lambda: model(image, domain))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.encoders", description=__doc__
    )
    parser.add_argument("--cost", action="store_true", help="time per image instead of accuracy")
    parser.add_argument("--calibration", action="store_true", help="how sure the weights are")
    parser.add_argument(
        "--encoder", default="style", help="which is tested, such as 'cnn size=32' (%(default)s)"
    )
    arguments = parser.parse_args()
    prepare()
    if arguments.cost:
        head = ("encoder, network, batch", "of its forward pass", "per image", "parameters")
        rows = [cost_of(kind, *case) for kind in KINDS for case in COSTS]
        ends = (COSTS[0], COSTS[-1])
        rows += [cost_of_attributes(kind, *case) for kind in ("metadata", "text") for case in ends]
        print(render(head, rows, markdown=True))
        return
    if arguments.calibration:
        scores = ("", "temperature", "NLL", "ECE", "NLL at 1", "ECE at 1")
        print(render(scores, [calibration_of(arguments.encoder, r) for r in SIZES], markdown=True))
        return
    shares = [row for root in SIZES for row in rows_of(arguments.encoder, root)]
    print(render(HEAD, shares, markdown=True))


if __name__ == "__main__":
    main()
