"""What samples of masks show: retinas, blood cells or streets where domains are named so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.datasets.label_sets import CAMVID11, LabelSet, mapping
from domainnorm.data.drawings.cells import STAINS, draw_blood_cell
from domainnorm.data.drawings.folders import Draw, styles_of
from domainnorm.data.drawings.fundus import CAMERAS, draw_fundus
from domainnorm.data.drawings.objects import draw_object
from domainnorm.data.drawings.street import draw_street
from domainnorm.data.drawings.weather import CONDITIONS, photograph

SIDE = 96  # pixels
STREET = (96, 128)  # 4:3, as the frames of CamVid


@dataclass(frozen=True)
class Subject:
    """A kind of scene.

    Args:
        classes: Content of ``classes.txt``.
        draw: For each domain, what draws an image of it.
        size: Height and width of the images.
    """

    classes: str
    draw: dict[str, Draw]
    size: tuple[int, int] = (SIDE, SIDE)


def subject_of(domains: Sequence[str], among: Sequence[str] = ()) -> Subject:
    """Blood cells for stains, retinas for cameras, streets for light and weather, else vehicles.

    Args:
        domains: What is drawn.
        among: All domains of the data where these are some of them: they show the same things.
    """
    everything = [*domains, *among]
    if all(domain in STAINS for domain in everything):
        draw: dict[str, Draw] = {domain: partial(_cell, domain) for domain in domains}
        return Subject("background\ncytoplasm\nnucleus\n", draw)
    cameras = {domain: _camera(domain) for domain in domains}
    if all(map(_camera, everything)):
        draw = {domain: partial(_retina, camera) for domain, camera in cameras.items()}
        return Subject("background\nvessel\n", draw)
    if all(domain in CONDITIONS for domain in everything):
        draw = {domain: partial(_street, domain) for domain in domains}
        return Subject(_coloured(CAMVID11), draw, STREET)
    draw = {domain: partial(_scene, style) for domain, style in styles_of(domains).items()}
    return Subject("ground\nvehicle,0,0,142\nperson,220,20,60\n", draw)


def _camera(domain: str) -> str:
    """The camera that the domain is named like, ``chase`` for ``chase_db1``; empty for none."""
    return next((name for name in CAMERAS if domain in (name, name.partition("_")[0])), "")


def _cell(
    stain: str, generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return draw_blood_cell(generator, STAINS[stain], SIDE, lobes=int(generator.choice([1, 3])))


def _retina(
    camera: str, generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    right = bool(generator.integers(2))
    drawn = draw_fundus(generator, CAMERAS[camera], (SIDE, SIDE), right=right)
    return drawn.image, drawn.vessels.astype(np.uint8)


def _coloured(labels: LabelSet) -> str:
    lines = (f"{name},{','.join(map(str, rgb))}\n" for name, rgb in labels.colours.items())
    return "".join(lines)


def _street(
    condition: str, generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    scene = draw_street(int(generator.integers(2**31)), *STREET)
    return photograph(scene, condition, "dashcam"), mapping("cityscapes19", "camvid11")[scene.mask]


def _scene(
    style: str, generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """0 for the ground, 1 for vehicles, 2 for people and 255 on outlines of people."""
    vehicle = str(generator.choice(["bus", "car", "truck", "train"]))
    image, parts = draw_object(vehicle, style, generator, SIDE)
    mask = (parts > 0).astype(np.uint8)
    half = SIDE // 2
    person, body = draw_object("person", style, generator, half)
    across = int(generator.integers(0, half + 1))
    view = (slice(half, SIDE), slice(across, across + half))
    outline = cv2.dilate((body > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    image[view] = np.where((body > 0)[..., None], person, image[view])
    mask[view] = np.where(body > 0, 2, np.where(outline, 255, mask[view]))
    return image, mask
