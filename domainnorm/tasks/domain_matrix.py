"""Every domain's test images under every domain's norms, of one model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from domainnorm.backbones import DomainModel
from domainnorm.data import DomainDataModule
from domainnorm.errors import DataError
from domainnorm.evaluation import CrossDomainMatrix, Evaluated
from domainnorm.registry import TASKS
from domainnorm.tasks.base import Task


@torch.no_grad()
def compare_domains(
    model: DomainModel,
    data: DomainDataModule | Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    task: Task | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> CrossDomainMatrix:
    """Test every domain's images with the norms of every domain.

    The model is in evaluation mode for this. A domain without labelled images has no column.

    Args:
        model: Its domains are the rows.
        data: Test images of a data module; or domain → batches with ``image`` (N, 3, H, W),
            ``target`` and further inputs of the model's norms. Masks are scored at their size.
        task: How outputs are predicted and scored; None: by the labels of the data module.
        seed: Seed that the matrix stores with the cells; further seeds can be `add`-ed.
        resamples: Number of bootstrap resamples for intervals, over patients or scenes if the data
            module has such groups.

    Returns:
        ``values("accuracy")`` is (1, rows, columns); `summary` has the means on and off the
        diagonal.

    Raises:
        DataError: Loaders without a task, or no image with a label.
    """
    dataset = data.dataset if isinstance(data, DomainDataModule) else None
    loaders: Mapping[str, Iterable[Mapping[str, Any]]]
    if isinstance(data, DomainDataModule):
        loaders = {name: data.evaluation_dataloader(name) for name in data.domain_names}
        task = task or _task_of(data)
    else:
        loaders = data
    if task is None:
        raise DataError("compare_domains: loaders without a task, expected task=Classification(…)")
    found = _predicted(model, loaders, task)
    found = {key: one for key, one in found.items() if one.is_labelled}
    if not found:
        raise DataError("compare_domains: no test image of any domain has a label")
    columns = [name for name in loaders if (model.domain_names[0], name) in found]
    options = task.metric_options()
    matrix = CrossDomainMatrix(model.domain_names, columns, resamples=resamples, options=options)
    for (row, name), one in found.items():
        groups = None if dataset is None else dataset.groups_of(one.index.tolist())
        matrix.add(seed, row, name, one, groups)
    return matrix


def _predicted(
    model: DomainModel, loaders: Mapping[str, Iterable[Mapping[str, Any]]], task: Task
) -> dict[tuple[str, str], Evaluated]:
    """Norms of a domain, and domain of images -> predictions, of domains that have images."""
    device = next(model.parameters()).device
    stores = {(row, name): task.store() for row in model.domain_names for name in loaders}
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for name, loader in loaders.items():
            came = 0
            for batch in loader:
                image = batch["image"].to(device)
                index = batch.get("index", torch.arange(came, came + len(image)))
                came += len(image)
                embedding = model.embedding_of({**batch, "image": image})
                for label, row in enumerate(model.domain_names):
                    domain = torch.full((len(image),), label, device=device)
                    logits = task.predict(model, image, domain, embedding=embedding)
                    stores[row, name].update(logits.cpu(), batch["target"].cpu(), index.cpu())
    finally:
        for module, mode in modes:
            module.training = mode
    return {key: store.compute() for key, store in stores.items() if store.update_called}


def _task_of(data: DomainDataModule) -> Task:
    """A task for the labels of a data module, with the options that it has by default."""
    kinds = (TASKS.entry(name) for name in TASKS.names())
    kind = next(one for one in kinds if one.constants.get("labels") == data.dataset.task)
    task: Task = kind.load()(data.class_names)
    task.set_window(data.crop)
    return task
