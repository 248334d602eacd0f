"""Scores of a stage's model without target labels, and what is stored for scores over stages.

A `Result` of a target domain has ``scores``, name of a validator → value, higher is better, apart
from its metrics; ``source_accuracy`` is the same in all targets of a stage. The validators read at
most ``evaluation.score_images`` *training* images of the target, without labels, and the source's
validation images. The predictions on the former lie in the folder of the stage as
``unlabelled-<domain>.safetensors``, `Predictions` without labels: of masks 64 pixels of each image,
the same ones for every model. `domainnorm.evaluation.ensv` compares those of several stages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.evaluation import (
    Evaluated,
    EvaluationError,
    Outputs,
    Predictions,
    ensv,
    score,
)
from domainnorm.methods import Method
from domainnorm.methods.heads import heads_of
from domainnorm.registry import VALIDATORS
from domainnorm.report import Result
from domainnorm.run.parts import Parts
from domainnorm.run.plan import Stage

_PIXELS = 64  # of an image
_SHARE = 0.55  # of the first of two mixed images
_ALL = [field.name for field in fields(Outputs)]


class Scorer:
    """Looks at images that the method of a stage need not have, and never at test images.

    Args:
        parts: Those of the run.
        stage: Whose model is scored.
        method: Its method, attached to a trainer when it is asked.
    """

    def __init__(self, parts: Parts, stage: Stage, method: Method) -> None:
        self.parts = parts
        self.stage = stage
        self.method = method

    def scores(self) -> tuple[dict[str, dict[str, float]], dict[str, Predictions]]:
        """Scores of each target, by name, and what is stored of it; empty where nothing can be.

        That is so for findings, tasks that give images, streams (whose model moves while it
        predicts), targets without training images, and without images to look at.
        """
        found: dict[str, dict[str, float]] = {}
        stored: dict[str, Predictions] = {}
        if self.method.protocol == "online":
            return found, stored
        source, said = self._validated(self._known_sources(), self._most, _ALL)
        for domain in self.domains:
            outputs, index = self.outputs(domain, _ALL)
            seen = replace(outputs, source=list(source.values()), **said)
            values = {name: score(name, seen) for name in VALIDATORS.names()}
            found[domain] = {name: one for name, one in values.items() if one is not None}
            nothing = torch.full_like(index, -1)
            stored[domain] = Predictions(outputs.probability, nothing, index)
        return found, stored

    @property
    def domains(self) -> list[str]:
        """Targets that are scored."""
        has_images = self.parts.dataset.positions
        scored = self.method.task.labels in ("classification", "segmentation")
        if not scored or not self._most:
            return []
        return [name for name in self.stage.roles.target if has_images([name], "train")]

    @property
    def _most(self) -> int:
        return self.parts.recipe.evaluation.score_images

    def _known_sources(self) -> list[str]:
        """The sources, if all of them have labels: a source model that is given needs none."""
        sources = self.stage.roles.source if self.domains else ()
        records = [one for one in self.parts.dataset.records if one.domain in sources]
        splits = {(one.domain, one.split) for one in records}
        has_images = {(name, split) for name in sources for split in ("train", "val")} <= splits
        labelled = all(one.is_labelled for one in records if one.split != "test")
        return list(sources) if has_images and labelled else []

    def validated(self, domains: Sequence[str], most: int | None = None) -> dict[str, Evaluated]:
        """Predictions on labelled validation images of some domains, by domain."""
        return self._validated(domains, most, ())[0]

    def _validated(
        self, domains: Sequence[str], most: int | None, wanted: Container[str]
    ) -> tuple[dict[str, Evaluated], dict[str, Tensor]]:
        """See `validated`; and of classes the ``wanted`` fields of `Outputs` of the same images."""
        data = self.parts.scoring_data(self.stage, self.method.model, domains, [])
        found: dict[str, Evaluated] = {}
        said: dict[str, list[Tensor]] = defaultdict(list)
        for domain in domains:
            store = self.method.task.store().to(self.method.trainer.strategy.root_device)
            with self._looking():
                for batch in map(self.method.ready, data.scoring_dataloader(domain, most)):
                    features, logits = self._described(batch, "source_features" in wanted)
                    store.update(logits, batch["target"], batch["index"])
                    if features is not None:
                        said["source_features"].append(features.cpu())
                        said["source_wrong"].append((logits.argmax(1) != batch["target"]).cpu())
            found[domain] = store.compute()
        return found, {name: torch.cat(tensors) for name, tensors in said.items()}

    def score(self, name: str, domain: str) -> float:
        """Of the model as it is, by one validator, on one target."""
        found = score(name, self.outputs(domain, VALIDATORS.entry(name).arguments)[0])
        if found is None:
            raise EvaluationError(
                f"evaluation.selection: '{name}' needs features or a second view of images of "
                f"'{domain}', which this model does not give; take another, such as 'infomax'"
            )
        return found

    def outputs(self, domain: str, wanted: Container[str]) -> tuple[Outputs, Tensor]:
        """What the model says of the training images of a target, and the image of each sample.

        Of the fields of `Outputs` those that are ``wanted``, and ``probability``.
        """
        data = self.parts.scoring_data(self.stage, self.method.model, [], [domain])
        found: dict[str, list[Tensor]] = defaultdict(list)
        with self._looking():
            for batch in map(self.method.ready, data.scoring_dataloader(domain, self._most)):
                for name, tensor in self._said(batch, wanted).items():
                    found[name].append(tensor.cpu())
        joined: dict[str, Any] = {name: torch.cat(tensors) for name, tensors in found.items()}
        index = joined.pop("index")
        return Outputs(**joined), index

    def _said(self, batch: dict[str, Any], wanted: Container[str]) -> dict[str, Tensor]:
        """Those fields of `Outputs` for one batch, and ``index``."""
        method, masks = self.method, self.method.task.labels == "segmentation"
        said: dict[str, Tensor] = {}
        features, logits = self._described(batch, "features" in wanted)
        if features is not None:
            said["features"] = features
        places = _places(batch["index"], logits.shape[2:]) if masks else None
        said["probability"] = _sampled(logits, places)
        if "strong" in wanted:
            said["strong"] = _sampled(self._logits(batch, batch["strong"]), places)
        if "student" in wanted and method.teacher is not None:
            said["student"] = _sampled(self._logits(batch, model=method.model), places)
        image, other = batch["image"], batch["image"].roll(1, 0)
        if "mixed" in wanted and len(image) > 1:
            mixed = self._logits(batch, _SHARE * image + (1 - _SHARE) * other)
            label = said["probability"].argmax(1)
            partner = _sampled(logits.roll(1, 0), places).argmax(1)
            said["mixed"] = _sampled(mixed, places)
            said |= {"mixed_label": label, "mixed_same": label == partner}
        repeats = 1 if places is None else _PIXELS
        return {**said, "index": batch["index"].repeat_interleave(repeats)}

    def _described(self, batch: dict[str, Any], wanted: bool) -> tuple[Tensor | None, Tensor]:
        """Features, None of masks and of networks without a head, and logits of one pass."""
        method = self.method
        has_features = method.task.labels == "classification" and bool(heads_of(method.deployed))
        if not (wanted and has_features):
            return None, self._logits(batch)
        features, logits = method.features(batch, model=method.deployed)
        return features.float(), logits

    def _logits(
        self, batch: dict[str, Any], image: Tensor | None = None, model: DomainModel | None = None
    ) -> Tensor:
        """Of the deployed model or another, as in validation, on other images where given."""
        image = batch["image"] if image is None else image
        model = model or self.method.deployed
        embedding = model.embedding_of({**batch, "image": image})
        return self.method.task.predict(model, image, batch["domain"], embedding=embedding)

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Evaluation mode on the device and in the precision of the trainer; then as before."""
        method, trainer = self.method, self.method.trainer
        modes = [(module, module.training) for module in method.modules()]
        device = method.device
        method.eval().to(trainer.strategy.root_device)  # after a fit Lightning has moved it away
        try:
            with torch.no_grad(), trainer.precision_plugin.val_step_context():
                yield
        finally:
            method.to(device)
            for module, mode in modes:
                module.training = mode


def _places(index: Tensor, size: Sequence[int]) -> Tensor:
    """Positions (N, P) in images of a size, drawn by the index of each; at any size the same."""
    drawn = [
        torch.rand(2, _PIXELS, generator=torch.Generator().manual_seed(one))
        for one in index.tolist()
    ]
    row, column = torch.stack(drawn, dim=1).to(index.device)  # (N, P) each, in [0, 1)
    height, width = size
    places: Tensor = (row * height).long() * width + (column * width).long()
    return places


def _sampled(logits: Tensor, places: Tensor | None) -> Tensor:
    """Probabilities (N, K), of masks (N · P, K) of the pixels at ``places`` (N, P)."""
    if places is not None:
        flat = logits.flatten(2)  # (N, K, H*W)
        logits = flat.gather(2, places[:, None].expand(-1, flat.shape[1], -1)).movedim(1, 2)
    return logits.float().softmax(-1).flatten(0, -2)


def with_ensv(found: Sequence[tuple[Result, Path]]) -> list[Result]:
    """Results with score ``ensv``, which compares models on one target of one transfer.

    Candidates are results that saw no target labels; one alone has no such score.

    Args:
        found: Results, each with the folder of its stage.
    """
    groups: dict[tuple[str, str, bytes], dict[int, Predictions]] = defaultdict(dict)
    for place, (one, folder) in enumerate(found):
        if one.scores and not one.supervised:
            said = Predictions.load(folder / f"unlabelled-{one.domain}.safetensors")
            samples = said.index.numpy().tobytes()  # runs may differ in how many they score
            groups[one.transfer, one.domain, samples][place] = said
    scored = [one for one, _ in found]
    for group in groups.values():
        if len(group) > 1:
            for place, value in zip(group, ensv(list(group.values())), strict=True):
                one = scored[place]
                scored[place] = replace(one, scores={**one.scores, "ensv": value})
    return scored
