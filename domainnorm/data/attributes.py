"""Attributes of images: those of their metadata that the domain may be estimated from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from domainnorm.data.dataset import DomainDataset, Record
from domainnorm.errors import DataError, unknown


def attributes_of(records: Iterable[Record], names: Sequence[str]) -> dict[str, list[str]]:
    """Attribute -> its value for each record, an empty text where it is missing."""
    chosen = list(records)
    return {name: [str(one.metadata.get(name, "")) for one in chosen] for name in names}


def check_attributes(names: Sequence[str], dataset: DomainDataset) -> None:
    """Refuse names that no image has anything for.

    Raises:
        DataError: Names the table of the dataset, if it has one, and the attributes there are.
    """
    known = list(dict.fromkeys(key for record in dataset.records for key in record.metadata if key))
    where = "this dataset" if dataset.table is None else str(dataset.table)
    for position, name in enumerate(names):
        if name not in known:
            raise DataError(f"data.attributes: {where}: {unknown('attribute', name, known)}")
        if name in names[:position]:
            raise DataError(f"data.attributes: '{name}' is given twice; name it once")
