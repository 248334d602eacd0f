"""Several datasets as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import DOMAIN_KEYS, DomainDataset, select_domains
from domainnorm.data.refusals import refuse
from domainnorm.errors import DataError, unknown
from domainnorm.registry import DATASETS, REQUIRED, register


@register
class Join(DomainDataset):
    """Domains of several datasets, for example the source from one and the target from another.

    Every part keeps its own splits. Domains of the same name become one domain; ``prefix`` keeps
    them apart. All parts must have the same classes; driving datasets have the key ``classes`` for
    this.

    Args:
        parts: Datasets, each with ``name``, its own keys, and optionally ``prefix``, the start of
            the names of its domains.
        domains: Domains to use, in this order; null for all.

    Raises:
        DataError: A part is wrong, named by ``data.parts[i]`` and the key, or classes differ.
    """

    task = ""  # that of its parts
    layout = "that of each part"

    def __init__(self, *, parts: list[dict[str, Any]], domains: list[str] | None = None) -> None:
        if not parts:
            raise DataError("data.parts: an empty list; name at least one dataset")
        names = [str(part.get("name")) for part in parts]
        self.parts = _created_all(parts)
        self._check_parts(names)
        for part in self.parts:
            self.left_out.join(part.left_out)
        self.task = self.parts[0].task
        self.class_names = self.parts[0].class_names
        prefixes = [str(part.get("prefix", "")) for part in parts]
        known = [
            prefix + domain
            for prefix, part in zip(prefixes, self.parts, strict=True)
            for domain in part.domain_names
        ]
        self.domain_names = select_domains(DOMAIN_KEYS, domains, list(dict.fromkeys(known)))
        self.records = []
        self._places: list[tuple[int, int]] = []
        for number, (name, prefix) in enumerate(zip(names, prefixes, strict=True)):
            self._take(number, f"{name}.{number}/", prefix)

    def _take(self, number: int, unique: str, prefix: str) -> None:
        """Add the records of one part, under names that no other part has."""
        for position, record in enumerate(self.parts[number].records):
            if prefix + record.domain not in self.domain_names:
                continue
            self._places.append((number, position))
            self.records.append(
                replace(
                    record,
                    file=unique + record.file,
                    mask=None if record.mask is None else unique + record.mask,
                    clean=None if record.clean is None else unique + record.clean,
                    group=unique + record.group,
                    domain=prefix + record.domain,
                )
            )

    def _check_parts(self, names: list[str]) -> None:
        first = self.parts[0]
        for number, part in enumerate(self.parts):
            where = f"data.parts[{number}] ({names[number]})"
            if part.task != first.task:
                raise DataError(
                    f"{where}: a dataset for {part.task}, but data.parts[0] ({names[0]}) is for "
                    f"{first.task}; join datasets of one task"
                )
            if part.class_names != first.class_names:
                only = [name for name in part.class_names if name not in first.class_names]
                lacking = [name for name in first.class_names if name not in part.class_names]
                raise DataError(
                    f"{where}: its {len(part.class_names)} classes differ from the "
                    f"{len(first.class_names)} of data.parts[0] ({names[0]}), only here "
                    f"{', '.join(only) or 'none'}, only there {', '.join(lacking) or 'none'}; "
                    "give all parts the same key 'classes', or data with the same classes in the "
                    "same order"
                )

    @property
    def class_colours(self) -> list[tuple[int, int, int]]:
        """The colours of the first part."""
        return self.parts[0].class_colours

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one record: (H, W, 3), RGB, 0 to 255."""
        number, position = self._places[index]
        return self.parts[number].image(position)

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """Those of the part."""
        number, position = self._places[index]
        return self.parts[number].sources(position, is_mask=is_mask)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), ``0 .. K - 1`` or 255 where there is none."""
        # A part still knows the labels that `without_labels` took from the records here.
        if self.records[index].mask is None:
            raise DataError(f"{self.records[index].file}: no mask is known for this image")
        number, position = self._places[index]
        return self.parts[number].mask(position)

    def clean(self, index: int) -> NDArray[np.uint8]:
        """Pixels that those of one record should be: (H, W, 3), RGB, 0 to 255."""
        if self.records[index].clean is None:  # see `mask`
            return super().clean(index)
        number, position = self._places[index]
        return self.parts[number].clean(position)


def _created_all(parts: list[dict[str, Any]]) -> list[DomainDataset]:
    """Every part; who collects problems gets those of all."""
    created, wrong = [], []
    for number, part in enumerate(parts):
        try:
            created.append(_created(f"data.parts[{number}]", part))
        except DataError as error:
            wrong.append(error)
    for former in wrong[:-1]:
        refuse(str(former))
    if wrong:
        raise wrong[-1]
    return created


def _created(where: str, part: dict[str, Any]) -> DomainDataset:
    """One part; its mistakes are named by their place in the recipe."""
    if part.get("name") not in DATASETS.names():
        raise DataError(f"{where}.name: {unknown('dataset', part.get('name'), DATASETS.names())}")
    entry = DATASETS.entry(part["name"])
    options = {key: value for key, value in part.items() if key not in ("name", "prefix")}
    for key in options:
        if key not in entry.parameters:
            known = [*entry.parameters, "name", "prefix"]
            raise DataError(f"{where}.{key}: {unknown('key', key, known)}")
    for key, parameter in entry.parameters.items():
        if parameter.default is REQUIRED and key not in options:
            raise DataError(f"{where}.{key}: missing; dataset '{entry.name}' needs it")
    try:
        dataset: DomainDataset = entry.load()(**options)
    except DataError as error:
        message = str(error).replace(DOMAIN_KEYS, "data.domains")
        if message.startswith("data."):
            raise DataError(f"{where}{message.removeprefix('data')}") from error
        raise DataError(f"{where}: {message}") from error
    return dataset
