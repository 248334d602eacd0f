"""Driving scenes: what their datasets share, and those that are layouts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import Record, Split
from domainnorm.data.datasets.label_sets import (
    CITYSCAPES19,
    CITYSCAPES_IDS,
    TRAIN_IDS,
    Colour,
    Lookup,
    inverted,
    label_set,
    mapping,
)
from domainnorm.data.datasets.layout import Layout, LayoutDataset
from domainnorm.data.splits import check_fraction, cut
from domainnorm.data.table import Row
from domainnorm.errors import DataError
from domainnorm.registry import register

# The labels of the official test images are withheld, so those for validation test, as usual.
OFFICIAL: Mapping[str, Split] = {"train": "train", "val": "test"}


class DrivingDataset(LayoutDataset):
    """Street scenes with masks in a chosen label set.

    Args:
        classes: Label set of the masks, such as ``cityscapes19``.
        options: Keys of `OfficialDataset`.

    Attributes:
        own: Name of the dataset's own label set.
        values: Numbers of the dataset's own label set by the values of its mask files, (256,).
    """

    task: Literal["segmentation"] = "segmentation"
    page = "docs/data_driving.md"
    lacking = (
        "missing, the mask of {image} ({count} of {total} images lack theirs); unpack the labels "
        "next to the images"
    )
    drawn = (64, 128)
    drawn_classes = len(CITYSCAPES19.names)
    own: str = "cityscapes19"
    values: Lookup
    mask_lookup: Lookup

    def __init__(
        self,
        *,
        classes: Literal[
            "cityscapes19", "cityscapes16", "cityscapes13", "camvid11"
        ] = "cityscapes19",
        **options: Any,
    ) -> None:
        self._colours = list(label_set(classes).colours.values())
        self.class_names = label_set(classes).names
        super().__init__(**options)
        self.mask_lookup = self.class_lookup(classes)
        for domain in self.domain_names:
            if not any(record.domain == domain for record in self.records):
                raise DataError(
                    f"{self.root}: no images of domain '{domain}'; expected {self.layout} "
                    f"({self.page})"
                )

    def class_lookup(self, classes: str) -> Lookup:
        """Numbers of the label set ``classes`` by the values of mask files, (256,)."""
        return mapping(self.own, classes)[self.values]

    @property
    def class_colours(self) -> list[Colour]:
        """The official RGB colour of each class."""
        return self._colours

    @classmethod
    def stored(cls, classes: NDArray[np.uint8]) -> NDArray[Any]:
        """Values of mask files for classes of the own label set."""
        return inverted(cls.values)[classes]


def draw_scenes(records: Sequence[Record], fraction: float, seed: int) -> list[Record]:
    """Move whole groups from ``train`` to ``val``, drawn from all domains together.

    The draw depends on the groups alone, so that a scene is in the same split in all its domains,
    and in all datasets that have the same scenes.

    Args:
        records: Images of all domains.
        fraction: Share of the training images to move, in (0, 1).
        seed: Seed of the draw.

    Raises:
        DataError: The fraction is out of range.
    """
    check_fraction("data.val_fraction", fraction)
    rows = [Row(record.file, "scenes", "", record.group, record.split) for record in records]
    drawn = cut(rows, "val", fraction, seed)
    return [replace(record, split=row.split) for record, row in zip(records, drawn, strict=True)]


@register("cityscapes")
class Cityscapes(DrivingDataset):
    """Cityscapes: 3,475 finely labelled daytime images of 21 cities, 2048 × 1024.

    The official ``val`` images are the test split, as usual, since the labels of ``test`` are
    withheld; a validation split is cut out of ``train``, whole sequences at a time.

    See `DrivingDataset` for the keys. ``root`` holds leftImg8bit and gtFine; there is one domain,
    ``cityscapes``.

    Reference:
        Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016.
    """

    homepage = "https://www.cityscapes-dataset.com"
    licence = "own terms: non-commercial research and teaching, registration"
    layout = "leftImg8bit/<split>/<city>/*_leftImg8bit.png, gtFine/<split>/<city>/*_labelIds.png"
    values = CITYSCAPES_IDS
    known = ("cityscapes",)
    files = (
        Layout(
            "leftImg8bit/{split:train,val}/{city}/{city}_{sequence}_{frame}_leftImg8bit.png",
            mask="gtFine/{split}/{city}/{city}_{sequence}_{frame}_gtFine_labelIds.png",
            domain="cityscapes",
            group="{city}_{sequence}",
            splits=OFFICIAL,
            metadata=("city", "sequence"),
        ),
    )
    draw = staticmethod(draw_scenes)  # the same sequences, with fog and without
    examples = (
        ("leftImg8bit/train/aachen/aachen_{:06d}_000019_leftImg8bit.png", range(8)),
        ("leftImg8bit/val/frankfurt/frankfurt_{:06d}_000019_leftImg8bit.png", range(3)),
    )


@register("foggy_cityscapes")
class FoggyCityscapes(DrivingDataset):
    """Foggy Cityscapes: Cityscapes with fog of three densities rendered from its depth maps.

    A domain is a fog density. The splits are those of ``cityscapes``. With equal ``val_fraction``
    and ``split_seed``, a sequence is in the same split here as there, at all fog densities.

    See `DrivingDataset` for the keys. ``root`` holds leftImg8bit_foggy and the gtFine of
    Cityscapes, whose own folder it may be. Domains are ``beta_0.005``, ``beta_0.01`` and
    ``beta_0.02``: attenuation of light per metre, visibility of about 600, 300 and 150 m.

    Reference:
        Sakaridis, Dai, Van Gool, "Semantic foggy scene understanding with synthetic data",
        IJCV 126, 2018, arXiv 1708.07819.
    """

    homepage = "https://people.ee.ethz.ch/~csakarid/SFSU_synthetic/"
    licence = "terms of Cityscapes: non-commercial research and teaching"
    layout = "leftImg8bit_foggy/<split>/<city>/*_leftImg8bit_foggy_beta_<beta>.png, gtFine/"
    values = CITYSCAPES_IDS
    known = ("beta_0.005", "beta_0.01", "beta_0.02")
    files = tuple(
        replace(
            Cityscapes.files[0],
            images="leftImg8bit_foggy/{split:train,val}/{city}/"
            "{city}_{sequence}_{frame}_leftImg8bit_foggy_beta_{beta:" + beta + "}.png",
            domain="beta_{beta}",
            metadata=("city", "sequence", "beta"),
        )
        for beta in ("0.005", "0.01", "0.02")
    )
    draw = staticmethod(draw_scenes)
    examples = tuple(
        (f"{names[:11]}_foggy{names[11:-4]}_foggy_{domain}.png", numbers)
        for domain in ("beta_0.005", "beta_0.01", "beta_0.02")
        for names, numbers in Cityscapes.examples
    )


@register("acdc")
class ACDC(DrivingDataset):
    """ACDC: 2,006 labelled images of roads in fog, at night, in rain and in snow, 1920 × 1080.

    A domain is a condition. The official ``val`` images are the test split, as usual, since the
    labels of ``test`` are withheld; a validation split is cut out of ``train``, whole recordings
    at a time. The reference images in good weather are not read.

    See `DrivingDataset` for the keys. ``root`` holds rgb_anon and gt; domains are ``fog``,
    ``night``, ``rain`` and ``snow``.

    Reference:
        Sakaridis, Dai, Van Gool, "ACDC: the adverse conditions dataset with correspondences for
        semantic driving scene understanding", ICCV 2021, arXiv 2104.13395.
    """

    homepage = "https://acdc.vision.ee.ethz.ch"
    licence = "own terms: non-commercial, registration"
    layout = "rgb_anon/<condition>/<split>/<recording>/*_rgb_anon.png, gt/…/*_gt_labelTrainIds.png"
    values = TRAIN_IDS
    known = ("fog", "night", "rain", "snow")
    files = (
        Layout(
            "rgb_anon/{condition:fog,night,rain,snow}/{split:train,val}/{sequence}/"
            "{frame}_rgb_anon.png",
            mask="gt/{condition}/{split}/{sequence}/{frame}_gt_labelTrainIds.png",
            domain="{condition}",
            # Numbers of recordings are those of the camera's files: they may come again elsewhere.
            group="{condition}/{sequence}",
            splits=OFFICIAL,
            metadata=("condition", "sequence"),
        ),
    )
    examples = tuple(
        (f"rgb_anon/{condition}/{split}/GOPR0{{0}}/GOPR0{{0}}_frame_000019_rgb_anon.png", numbers)
        for condition in ("fog", "night", "rain", "snow")
        for split, numbers in (("train", range(400, 408)), ("val", range(600, 602)))
    )


@register("dark_zurich")
class DarkZurich(DrivingDataset):
    """Dark Zurich: 8,377 unlabelled images by day, twilight and night, and 50 labelled by night.

    A domain is a time of day. Training images have no labels, so a domain can only be a target.
    The official ``val`` images (labelled, by night) are the test split, as usual, since the labels
    of ``test`` are withheld: ``day`` and ``twilight`` have no test images. A validation split is
    cut out of the training images, whole recordings at a time.

    See `DrivingDataset` for the keys. ``root`` holds rgb_anon and gt, of the training and the
    validation archive; domains are ``day``, ``twilight`` and ``night``.

    Reference:
        Sakaridis, Dai, Van Gool, "Guided curriculum model adaptation and uncertainty-aware
        evaluation for semantic nighttime image segmentation", ICCV 2019, arXiv 1901.05946.
    """

    homepage = "https://www.trace.ethz.ch/publications/2019/GCMA_UIoU/"
    licence = "own terms: non-commercial"
    layout = "rgb_anon/{train,val}/<hour>/<recording>/*_rgb_anon.png, gt/val/night/<recording>/"
    values = TRAIN_IDS
    known = ("day", "twilight", "night")
    files = (
        Layout(
            "rgb_anon/{split:train}/{time_of_day:day,twilight,night}/{sequence}/"
            "{frame}_rgb_anon.png",
            domain="{time_of_day}",
            group="{split}/{sequence}",
            metadata=("time_of_day", "sequence"),
        ),
        Layout(
            "rgb_anon/{split:val}/{time_of_day:night}/{sequence}/{frame}_rgb_anon.png",
            mask="gt/val/night/{sequence}/{frame}_gt_labelTrainIds.png",
            domain="{time_of_day}",
            group="{split}/{sequence}",
            splits=OFFICIAL,
            metadata=("time_of_day", "sequence"),
        ),
    )
    examples = (
        *(
            (
                f"rgb_anon/train/{hour}/GOPR03{{0}}/GOPR03{{0}}_frame_000001_rgb_anon.png",
                range(20, 28),
            )
            for hour in ("day", "twilight", "night")
        ),
        ("rgb_anon/val/night/GOPR0356/GOPR0356_frame_{:06d}_rgb_anon.png", range(3)),
    )


@register("nighttime_driving")
class NighttimeDriving(DrivingDataset):
    """Nighttime Driving Test: 50 coarsely labelled images by night, 1920 × 1080, only for testing.

    Its domain has the same name as in Dark Zurich: a ``join`` of the two trains on Dark Zurich's
    images and tests on both.

    Args:
        root: The unpacked folder NighttimeDrivingTest: absolute, or relative to DOMAINNORM_DATA.
        domains: Domains to use; there is one, ``night``.
        classes: Label set of the masks, such as ``cityscapes19``.

    Reference:
        Dai, Van Gool, "Dark model adaptation: semantic image segmentation from daytime to
        nighttime", ITSC 2018, arXiv 1810.02575.
    """

    homepage = "https://people.ee.ethz.ch/~daid/NightDriving/"
    licence = "research"
    layout = "leftImg8bit/test/night/*_leftImg8bit.png, gtCoarse_daytime_trainvaltest/test/night/"
    values = TRAIN_IDS
    known = ("night",)
    files = (
        Layout(
            "leftImg8bit/{split:test}/{time_of_day:night}/{frame}_leftImg8bit.png",
            mask="gtCoarse_daytime_trainvaltest/test/night/{frame}_gtCoarse_labelTrainIds.png",
            domain="night",
            group="{frame}",
            metadata=("time_of_day",),
        ),
    )
    examples = (("leftImg8bit/test/night/0_frame_{:04d}_leftImg8bit.png", range(4)),)

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        classes: Literal[
            "cityscapes19", "cityscapes16", "cityscapes13", "camvid11"
        ] = "cityscapes19",
    ) -> None:
        super().__init__(root=root, domains=domains, classes=classes)
