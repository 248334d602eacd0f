"""Tiles against whole images: ``python -m tests.benchmarks.translated_tiles RUN IMAGES STYLE``.

How far what a translator changes in tiles of a side is from what it changes in the whole image at
its own size: mean difference of values to 255, where the image is bright and where it is black.
``parts PHOTOGRAPHS OUT`` instead cuts the parts that it learns from: 96 pixels wide, of a folder of
domains with ``splits.csv``, 16 of each image for training and 4 of each for tests.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from domainnorm.data.images import read_image
from domainnorm.run.models import load_stored, preprocessing_of
from domainnorm.tasks.translator import PixelTranslator, row_of, style_of_domains

TILES, WHOLE, SIDE = (96, 192), 4096, 96
DOMAINS = ("drive", "stare")


def parts(photographs: Path, out: Path) -> None:
    generator = np.random.default_rng(0)
    with (photographs / "splits.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["domain"] in DOMAINS]
    table = []
    for row in rows:
        pixels = cv2.imread(str(photographs / row["file"]))
        height, width = pixels.shape[:2]
        for number in range(4 if row["split"] == "test" else 16):
            top, left = generator.integers(height - SIDE), generator.integers(width - SIDE)
            name = f"{row['domain']}/images/{Path(row['file']).stem}_{number}.png"
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(out / name), pixels[top : top + SIDE, left : left + SIDE])
            table.append([name, row["domain"], "images", row["group"], row["split"]])
    with (out / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "domain", "class", "group", "split"], *table])


def main(run: Path, images: list[Path], style: str) -> None:
    torch.set_num_threads(1)
    stored = load_stored(run)
    preprocessing = preprocessing_of(stored.recipe, stored.model)
    asked = style_of_domains(stored.model, row_of(stored.model, style))
    far, changed = [], []
    for file in images:
        pixels = read_image(file, 255)
        bright = pixels.sum(2, dtype=np.int64) > 60
        made = []
        for tile in (*TILES, WHOLE):
            translator = PixelTranslator(stored.model, preprocessing, tile)
            made.append(next(iter(translator.changes(pixels, asked))))
        where = (bright, ~bright)
        far.append([np.abs(one - made[-1])[part].mean() for one in made[:-1] for part in where])
        changed.append(np.abs(made[-1])[bright].mean())
    names = [f"tiles of {tile}, {part}" for tile in TILES for part in ("bright", "black")]
    for name, value in zip(names, np.mean(far, 0), strict=True):
        print(f"{name}: {value:.2f}")
    print(f"the change itself, bright: {np.mean(changed):.1f}")


if __name__ == "__main__":
    if sys.argv[1] == "parts":
        parts(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]), sorted(Path(sys.argv[2]).glob("*test*")), sys.argv[3])
