"""Damaged files of every container: ``python -m tests.fuzz.images --seed 0 --count 500``.

For each kind of file ``count`` copies are damaged (a bit or a byte changed, bytes cut out, cut off,
put in or swapped, nothing left) and read as the product reads them. What may come of it: the same
content, a `DataError`, and, where the container has no checksums, other content. Anything else is a
fault: other content of a container with checksums, or an exception of another kind.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import nibabel
import numpy as np
from PIL import Image

from domainnorm.data.datasets import Dicom, MedMnist
from domainnorm.data.datasets.digits import read_idx, write_idx
from domainnorm.data.images import read_image
from domainnorm.data.masks import read_classes, read_mask
from domainnorm.data.table import read_lines, read_table
from domainnorm.data.volumes.dicom_files import read_header, read_pixels
from domainnorm.data.volumes.nifti_slices import load_values
from domainnorm.errors import DataError
from tests.fuzz.command import parser_of, tabulate

Read = Callable[[Path], Any]
_IMAGES, _MASKS = ("png", "jpg", "bmp", "tif", "webp", "ppm"), ("png", "tif", "bmp")


class Kind(NamedTuple):
    """A container, how it is written and read, and whether its checksums say all."""

    file: str
    write: Callable[[Path], None]
    read: Read
    checked: bool


def kinds() -> Iterator[Kind]:
    """Every container that the product reads."""
    random_pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    classes = (random_pixels[..., 0] > 128).astype(np.uint8)
    for suffix in _IMAGES:
        yield Kind(f"image.{suffix}", _saved(random_pixels), read_image, suffix == "png")
    deep = random_pixels.astype(np.uint16) * 200
    yield Kind("deep.png", lambda file: _written(file, deep), read_image, True)
    for suffix in _MASKS:
        yield Kind(f"mask.{suffix}", _saved(classes), read_mask, suffix == "png")
    for name, options in (("deflate", "tiff_deflate"), ("lzw", "tiff_lzw")):
        yield Kind(f"{name}.tif", _saved(classes, compression=options), read_mask, False)
    volume = np.random.default_rng(0).integers(0, 1000, (6, 5, 4)).astype(np.int16)
    for suffix in ("nii", "nii.gz"):
        yield Kind(f"a.{suffix}", lambda file: _volume(file, volume), load_values, "gz" in suffix)
    yield Kind("labels-idx1-ubyte.gz", _idx, _read_idx, True)
    yield Kind("organamnist.npz", lambda file: MedMnist.write_sample(file.parent), _med, True)
    yield Kind(
        "scan.dcm", _dicom, lambda file: (read_header(file), read_pixels(file, 0, None)), False
    )
    table = "file,domain,class,group,split\n" + "".join(
        f"a/{n}.png,a,x,{n},train\n" for n in range(9)
    )
    yield Kind("splits.csv", lambda file: file.write_text(table), read_table, False)  # type: ignore[arg-type, return-value]
    yield Kind("lines.csv", lambda file: file.write_text(table), read_lines, False)  # type: ignore[arg-type, return-value]
    names = "road,128,64,128\ncar,0,0,142\n,0,0,0\n"
    yield Kind("classes.txt", lambda file: file.write_text(names), read_classes, False)  # type: ignore[arg-type, return-value]


def _saved(pixels: np.ndarray, **options: Any) -> Callable[[Path], None]:
    return lambda file: Image.fromarray(pixels).save(file, **options)


def _written(file: Path, pixels: np.ndarray) -> None:
    assert cv2.imwrite(str(file), pixels)


def _volume(file: Path, values: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])), file)


def _idx(file: Path) -> None:
    write_idx(file, np.arange(8, dtype=np.uint8))
    write_idx(file.with_name("images-idx3-ubyte.gz"), np.zeros((8, 4, 4), np.uint8))


def _read_idx(file: Path) -> Any:
    return read_idx(file.with_name("images-idx3-ubyte"), file.with_name("labels-idx1-ubyte"))


def _med(file: Path) -> Any:
    dataset = MedMnist(root=str(file.parent))
    shown = np.stack([dataset.image(n) for n in range(22)])
    return shown, [record.target for record in dataset.records]


def _dicom(file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Dicom.write_sample(Path(folder))
        file.write_bytes(next(iter(sorted(Path(folder).rglob("*.dcm")))).read_bytes())


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one thing wrong."""
    at, size = draw.randrange(len(data)), draw.randint(1, 16)
    other = draw.randrange(len(data))
    return draw.choice(
        [
            data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :],
            data[:at] + draw.randbytes(1) + data[at + 1 :],
            data[:at] + data[at + size :],
            data[:at],
            data[:at] + draw.randbytes(size) + data[at:],
            data[:at] + data[other : other + size] + data[at + size :],
            data[: draw.choice([0, 1, 4])],
        ]
    )


def plain(content: Any) -> str:
    """Content in a form that can be compared."""
    if isinstance(content, np.ndarray):
        return f"{content.dtype}{content.shape}{content.tobytes().hex()}"
    if isinstance(content, (list, tuple)) and not hasattr(content, "_fields"):
        return "|".join(map(plain, content))
    return repr(content)


def fuzz(kind: Kind, seed: int, count: int, place: Path) -> tuple[Counter[str], list[str]]:
    """How often each thing came of it, and faults in words."""
    folder = place / kind.file.replace(".", "_")
    folder.mkdir(parents=True)
    file = folder / kind.file
    kind.write(file)
    data, wanted = file.read_bytes(), plain(kind.read(file))
    draw = random.Random(f"{kind.file} {seed}")
    found: Counter[str] = Counter()
    faults: list[str] = []
    for number in range(count):
        file.write_bytes(damaged(data, draw))
        try:
            outcome = "same" if plain(kind.read(file)) == wanted else "other"
        except DataError:
            outcome = "refused"
        except Exception as error:
            outcome = "escaped"
            faults.append(f"{kind.file} {number}: {type(error).__name__}: {error}")
        found[outcome] += 1
        if outcome == "other" and kind.checked:
            faults.append(f"{kind.file} {number}: other content, though checksums say so")
    return found, faults


def main() -> int:
    asked = parser_of("images", __doc__, 100, "damaged files of each kind").parse_args()
    with tempfile.TemporaryDirectory() as place:
        return tabulate(
            "file",
            ("refused", "same", "other"),
            ((kind.file, *fuzz(kind, asked.seed, asked.count, Path(place))) for kind in kinds()),
        )


if __name__ == "__main__":
    sys.exit(main())
