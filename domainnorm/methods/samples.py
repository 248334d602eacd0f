"""Samples of a batch that losses compare: images, parts of masks, those of all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

from domainnorm.condition import as_condition
from domainnorm.errors import DomainNormError
from domainnorm.norms.kernels.partition import several_ranks, sum_over_ranks
from domainnorm.tasks import Task

_GRID = 8  # cells along each side of a map
_PIXELS = 64  # of each image, where not all can be compared


def cells(maps: Tensor) -> Tensor:
    """Vectors of images as they are, maps averaged over each cell of a grid of 8 × 8.

    Args:
        maps: (N, F), or (N, F, h, w).

    Returns:
        (N, 1, F), or (N, 64, F).
    """
    if maps.ndim > 2:
        maps = F.adaptive_avg_pool2d(maps, _GRID)
    return maps.flatten(2).movedim(1, -1) if maps.ndim > 2 else maps[:, None]


def pixels(logits: Tensor) -> Tensor:
    """Logits of images as they are, those of masks at some pixels of each image.

    64 pixels of each image, drawn in equal parts from the classes that are predicted for it, as far
    as these have so many: losses that want all classes to be predicted equally often would fill
    masks with rare ones otherwise.

    Args:
        logits: (N, K), or (N, K, H, W).

    Returns:
        (N, K), or (N, K, 64); (N, K, H · W) for smaller masks.
    """
    if logits.ndim == 2:
        return logits
    logits = logits.flatten(2)
    label = logits.detach().argmax(1)  # (N, H*W)
    area = torch.stack([(label == k).sum(1) for k in range(logits.shape[1])], 1)
    chance = 1 / area.gather(1, label).float()
    chosen = torch.multinomial(chance, min(_PIXELS, label.shape[1]))
    return logits.gather(2, chosen[:, None].expand(-1, logits.shape[1], -1))


def joined(local: Tensor) -> Tensor:
    """The samples of all ranks (N, ...), in the order of the ranks; every rank has as many.

    Gradients reach the rank whose samples they are; as elsewhere, they are those of the sum of all
    ranks' losses. A loss of the joined batch is thus that of one process.
    """
    if not several_ranks():
        return local
    own = distributed.get_rank()
    ranks = range(distributed.get_world_size())
    return sum_over_ranks(
        torch.cat([local if r == own else torch.zeros_like(local) for r in ranks])
    )


def by_role(samples: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor]:
    """Samples (N, M, F) of all ranks' labelled images, and of the others, (S, F) and (T, F)."""
    samples, known = joined(samples), joined(labelled.int()) > 0
    return samples[known].flatten(0, 1), samples[~known].flatten(0, 1)


def others(samples: Tensor, labelled: Tensor) -> Tensor:
    """Samples (N, ...) of all ranks' images without labels, (T, ...)."""
    return joined(samples)[joined(labelled.int()) == 0]


def over_ranks(value: Tensor) -> Tensor:
    """The mean over all ranks; the value itself on one."""
    return sum_over_ranks(value) / distributed.get_world_size() if several_ranks() else value


def complete(
    batch: Any,
    domain_names: Sequence[str],
    task: Task,
    seen: Sequence[str],
    *,
    training: bool,
    views: str = "one",
) -> dict[str, Any]:
    """A batch with what a loader of one's own may have left out, see `DomainView`.

    Domains may be names. Images without ``target`` have no label. Where nothing says which images
    are ``labelled``, those of domains are whose labels may be ``seen``; in training the others lose
    theirs.

    Raises:
        DomainNormError: No mapping, or one without images, domains, or the second of two views.
        ConditionError: Domains that are not the model's.
    """
    needs = {"image", "domain", *(["strong"] if training and views == "two" else [])}
    if not isinstance(batch, Mapping) or not needs <= batch.keys():
        held = f" with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
        raise DomainNormError(
            f"batch: a {type(batch).__name__}{held}, expected a mapping with 'image' (N, 3, H, W), "
            "'domain' (labels or names), 'target' if there are labels, and 'strong' (the strong "
            "view of the images) for methods of two views"
        )
    done = dict(batch)
    if "labelled" in done:
        return done
    image = done["image"]
    domain = as_condition(done["domain"], None, domain_names, image).domain
    assert domain is not None  # where it is not in weights
    done["domain"] = domain
    if "target" not in done:
        shapes = {
            "multilabel": (len(task.class_names),),
            "segmentation": image.shape[2:],
            "restoration": image.shape[1:],
        }
        shape = (len(image), *shapes.get(task.labels, ()))
        kind = image.dtype if task.labels == "restoration" else torch.long
        done["target"] = torch.full(shape, -1, dtype=kind, device=image.device)
    labels = torch.tensor([list(domain_names).index(name) for name in seen], dtype=torch.long)
    done["labelled"] = known = torch.isin(domain, labels.to(image.device))
    if training:
        target = done["target"]
        done["target"] = target.masked_fill(~known.view(-1, *[1] * (target.ndim - 1)), -1)
    return done


def split(batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The labelled and the unlabelled images of a batch, in their order."""
    labelled = batch["labelled"]
    return chosen(batch, labelled), chosen(batch, ~labelled)


def chosen(part: Any, rows: Tensor) -> Any:
    """The rows (N,) bool of a tensor, of a list, or of all that a mapping holds."""
    if isinstance(part, Tensor):
        return part[rows]
    if isinstance(part, Mapping):
        return {name: chosen(value, rows) for name, value in part.items()}
    return [value for value, row in zip(part, rows.tolist(), strict=True) if row]


def gathered(parts: Sequence[Any]) -> Any:
    """Tensors, lists, or mappings of them, joined along the images: what `chosen` took apart."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, Mapping):
        return {name: gathered([part[name] for part in parts]) for name in first}
    return [value for part in parts for value in part]


def scattered(parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """One tensor (N, ...) of parts and the rows (N,) bool of each: what `chosen` took apart.

    It has the type of the first part.
    """
    members, parts = zip(*parts, strict=True)
    found: Tensor = parts[0].new_empty(len(members[0]), *parts[0].shape[1:])
    for rows, part in zip(members, parts, strict=True):
        found[rows] = part.to(found)
    return found
