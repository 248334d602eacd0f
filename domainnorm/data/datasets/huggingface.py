"""A dataset of Hugging Face's library, from a folder or from the hub."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainnorm.data.dataset import DATA_VARIABLE, DOMAIN_KEYS, DomainDataset, Split, select_domains
from domainnorm.data.datasets.class_files import class_records
from domainnorm.data.datasets.drawing import COUNTS, draw_boxes, generator_of
from domainnorm.data.folders import Cuts
from domainnorm.data.images import decode_image, read_image
from domainnorm.data.splits import check_groups, cut
from domainnorm.data.table import Row, is_gap
from domainnorm.errors import DataError, unknown
from domainnorm.registry import register

NAMES = ("image", "label", "domain", "group")
_SPLITS: dict[str, Split] = {
    "train": "train",
    "validation": "val",
    "valid": "val",
    "val": "val",
    "test": "test",
}


@register
class HuggingFace(DomainDataset):
    """Images with one class each, from a dataset of the Hugging Face library ``datasets``.

    Columns are image, label, domain and group; group may be absent. Splits are those of the
    dataset; a missing ``validation`` or ``test`` split is drawn as by the dataset ``folder``.
    No code that comes with a dataset is run. Needs ``pip install 'domainnorm[data]'``.

    Args:
        root: A folder that ``save_to_disk`` wrote, absolute or relative to the folder that the
            environment variable DOMAINNORM_DATA names; else the name of a dataset on the hub.
        config: Configuration of a dataset on the hub that has several.
        revision: Branch, tag or commit of a dataset on the hub; a commit makes a run repeatable.
        columns: Your names of columns that have another name: ``{domain: hospital}``.
        domains: Domains to use, in this order; null for all.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of all images to test on when there is no test split, in (0, 1).
        split_seed: Seed of drawn splits.

    Raises:
        DataError: The library, the dataset or a column is missing; the message names it.
    """

    homepage = "https://huggingface.co/docs/datasets"
    licence = "that of the dataset"
    layout = "a folder of save_to_disk, or a name on the hub, with image, label, domain"

    def __init__(
        self,
        *,
        root: str,
        config: str | None = None,
        revision: str | None = None,
        columns: dict[str, str] | None = None,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        split_seed: int = 0,
    ) -> None:
        cuts = Cuts(val_fraction, test_fraction, split_seed)
        self.root = root
        names = _columns(columns or {})
        parts = _loaded(root, config, revision)
        rows = list(_rows(parts, names, root))
        undecoded = _library().Image(decode=False)
        self._image_column = names["image"]
        self._parts: dict[str, Any] = {
            split: part.cast_column(names["image"], undecoded) for split, part in parts.items()
        }
        check_groups(rows, root)
        if "test" not in parts:
            rows = cut(rows, "test", cuts.test_fraction, cuts.seed)
        if "val" not in parts:
            rows = cut(rows, "val", cuts.val_fraction, cuts.seed)
        known = sorted({row.domain for row in rows})
        self.domain_names = select_domains(DOMAIN_KEYS, domains, known)
        used = [row for row in rows if row.domain in self.domain_names]
        self.class_names = _class_names(parts, names["label"], used)
        self.records = class_records(used, self.class_names)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one record: (H, W, 3), RGB, 0 to 255."""
        part, _, number = self.records[index].file.partition("/")
        stored = self._parts[part][int(number)][self._image_column]
        if stored["bytes"] is None:
            return read_image(Path(stored["path"]))
        return decode_image(stored["bytes"], f"{self.root}, {self.records[index].file}")

    @classmethod
    def write_sample(
        cls, root: Path, *, seed: int = 0, domains: Sequence[str] = ("shop_a", "shop_b")
    ) -> None:
        """Four kinds of objects, each domain in another style, as ``save_to_disk`` writes them."""
        library = _library()
        classes = ["bus", "car", "cup", "dog"]
        features = library.Features(
            image=library.Image(),
            label=library.ClassLabel(names=classes),
            domain=library.Value("string"),
        )
        parts = {}
        for split, count in COUNTS.items():
            lines: list[dict[str, Any]] = []
            for domain in domains:
                for label in classes * count:
                    generator = generator_of(seed, f"{domain}/{split}/{len(lines)}")
                    image, _ = draw_boxes(generator, [1 + classes.index(label)], domain)
                    lines.append(
                        {"image": Image.fromarray(image), "label": label, "domain": domain}
                    )
            parts["validation" if split == "val" else split] = library.Dataset.from_list(
                lines, features=features
            )
        library.DatasetDict(parts).save_to_disk(root)


def _library() -> Any:
    try:
        import datasets  # noqa: PLC0415  (an optional library)
    except ImportError as error:
        raise DataError(
            "data.name: huggingface needs the library datasets; pip install 'domainnorm[data]'"
        ) from error
    # Bars of its own would tear the table of a run apart.
    datasets.disable_progress_bars()
    return datasets


def _loaded(root: str, config: str | None, revision: str | None) -> dict[Split, Any]:
    """The splits under our names."""
    library = _library()
    folder = Path(os.environ.get(DATA_VARIABLE) or "data") / root
    try:
        if folder.is_dir():
            found = library.load_from_disk(str(folder))
        else:
            found = library.load_dataset(root, name=config, revision=revision)
    except Exception as error:  # of the library, of HTTP, of pyarrow, of the file system
        raise DataError(
            f"data.root: '{root}' is neither a folder that save_to_disk wrote "
            f"({folder.absolute()}) nor a dataset that can be loaded from the hub: {error}"
        ) from error
    parts = found if isinstance(found, Mapping) else {"train": found}
    for name in parts:
        if name not in _SPLITS:
            raise DataError(f"{root}: {unknown('split', name, _SPLITS)}")
    return {_SPLITS[name]: part for name, part in parts.items()}


def _columns(given: Mapping[str, str]) -> dict[str, str]:
    for name in given:
        if name not in NAMES:
            raise DataError(f"data.columns: {unknown('column', name, NAMES)}")
    return {name: given.get(name, name) for name in NAMES}


def _rows(parts: Mapping[Split, Any], names: Mapping[str, str], root: str) -> Iterator[Row]:
    for split, part in parts.items():
        wanted = [names[name] for name in ("label", "domain")]
        for column in (names["image"], *wanted):
            if column not in part.column_names:
                text = unknown("column", column, part.column_names)
                raise DataError(f"{root}, {split}: {text}; name it with data.columns")
        wanted += [names["group"]] if names["group"] in part.column_names else []
        texts = [_texts(part, column) for column in wanted]
        for number, (label, domain, *group) in enumerate(zip(*texts, strict=True)):
            file = f"{split}/{number:06d}"
            yield Row(file, domain, label, (group[0] if group else "") or file, split)


def _texts(part: Any, column: str) -> list[str]:
    """A column as text; numbers of classes become their names, none becomes empty."""
    values = part.select_columns(column).to_dict()[column]
    names = getattr(part.features[column], "names", None)
    if names is None:
        return ["" if is_gap(value) else str(value) for value in values]
    return ["" if value is None or value < 0 else names[value] for value in values]


def _class_names(parts: Mapping[Split, Any], column: str, rows: Sequence[Row]) -> list[str]:
    names = getattr(next(iter(parts.values())).features[column], "names", None)
    return list(names or sorted({row.label for row in rows if row.label}))
