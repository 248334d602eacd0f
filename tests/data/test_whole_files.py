"""Files that are damaged, or turned, or hold other numbers than classes: read right, or refused."""

import io
import random
import zlib

import cv2
import nibabel
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from domainnorm.data import survey_dataset
from domainnorm.data.datasets import FolderMasks, MedMnist
from domainnorm.data.images import read_image, read_size
from domainnorm.data.masks import read_classes, read_mask
from domainnorm.data.volumes.nifti_slices import load_values
from domainnorm.errors import DataError
from domainnorm.storage import damage_of

ROWS, COLUMNS = np.mgrid[:24, :24]
DISC = ((ROWS - 12) ** 2 + (COLUMNS - 12) ** 2 < 60).astype(np.uint8)
CORNERS = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8)  # no two pixels alike


def flips(data, count=None):
    """The file with one bit flipped, everywhere or at some places."""
    bits = range(8 * len(data))
    for bit in bits if count is None else random.Random(0).sample(bits, count):
        yield data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def wrong(read, file, wanted, damaged):
    """How many damaged files are read as something else; what is refused is no such."""
    found = 0
    for data in damaged:
        file.write_bytes(data)
        try:
            values = read(file)
        except DataError as error:
            assert str(file) in str(error)  # noqa: PT017 - what else it may be is the next line
        else:
            found += not np.array_equal(values, wanted)
    return found


@pytest.mark.parametrize("read", [read_mask, read_image])
def test_no_flipped_bit_of_a_png_gives_other_pixels(tmp_path, read):
    file = tmp_path / "a.png"
    Image.fromarray(DISC).save(file)
    assert wrong(read, file, read(file), flips(file.read_bytes())) == 0


def test_no_flipped_bit_of_a_compressed_volume_gives_other_voxels(tmp_path):
    file = tmp_path / "a.nii.gz"
    values = np.random.default_rng(0).integers(0, 1000, (6, 5, 4)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 4.0, 1.0])), file)
    assert wrong(load_values, file, values, flips(file.read_bytes(), 300)) == 0


def test_no_flipped_bit_of_an_archive_gives_other_images(tmp_path):
    MedMnist.write_sample(tmp_path)
    file = tmp_path / "organamnist.npz"

    def read(_):
        dataset = MedMnist(root=str(tmp_path))
        return np.stack([dataset.image(n) for n in range(22)])

    wanted = read(file)
    assert wrong(read, file, wanted, flips(file.read_bytes(), 40)) == 0


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["png", "gz", "npz"])
def test_what_is_cut_is_told(tmp_path, kind, kept):
    stream = io.BytesIO()
    if kind == "png":
        Image.fromarray(DISC).save(stream, "PNG")
    elif kind == "npz":
        np.savez_compressed(stream, a=DISC)
    else:
        nibabel.save(nibabel.Nifti1Image(DISC[..., None], np.eye(4)), tmp_path / "a.nii.gz")
        stream.write((tmp_path / "a.nii.gz").read_bytes())
    data = stream.getvalue()
    assert damage_of(data) == ""
    assert damage_of(data[: int(kept * len(data))])


def stored(file, values, orientation, **options):
    exif = Image.Exif()
    exif[274] = orientation
    given = {"tiffinfo": {274: orientation}} if file.suffix == ".tif" else {"exif": exif}
    Image.fromarray(values).save(file, **given, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_masks_are_turned_as_their_images_are(tmp_path, suffix, orientation):
    file = tmp_path / f"a{suffix}"
    stored(file, CORNERS, orientation)
    image = read_image(file)
    assert_array_equal(read_mask(file), image[..., 0])
    assert read_size(file) == image.shape[:2] == ((8, 6) if orientation > 4 else (6, 8))


def test_masks_of_sixteen_bits_in_colour_are_turned_too(tmp_path):
    file, turned = tmp_path / "a.png", tmp_path / "b.png"
    cv2.imwrite(str(file), np.repeat(CORNERS[..., None].astype(np.uint16), 3, 2))
    exif = Image.Exif()
    exif[274] = 6
    data = file.read_bytes()
    # The chunk of orientation after the header; Pillow writes no colours of sixteen bits.
    chunk = exif.tobytes().removeprefix(b"Exif\0\0")
    body = b"eXIf" + chunk
    crc = zlib.crc32(body).to_bytes(4, "big")
    turned.write_bytes(data[:33] + len(chunk).to_bytes(4, "big") + body + crc + data[33:])
    assert_array_equal(read_mask(turned), np.rot90(CORNERS, -1))


def folder(root, image, mask):
    for name, orientation in (("images", image), ("masks", mask)):
        for number in range(10):
            file = root / "day" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            stored(file, DISC, orientation)
    (root / "classes.txt").write_text("sky\ndisc\n")
    return survey_dataset(lambda: FolderMasks(root=str(root)))


def test_check_lists_images_that_state_another_orientation_than_their_masks(tmp_path):
    notes = " ".join(folder(tmp_path / "one", 6, 1).notes)
    assert "10 images with another orientation (EXIF) than the mask" in notes
    assert "orientation" not in " ".join(folder(tmp_path / "both", 6, 6).notes)


@pytest.mark.parametrize("value", [0.9, 1 / 255, float("nan"), float("inf")])
def test_masks_of_shares_are_refused(tmp_path, value):
    values = DISC.astype(np.float32)
    values[3, 4] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: 1 pixel with values such as .*whole numbers"):
        read_mask(tmp_path / "a.tif")


def test_masks_of_whole_numbers_may_be_stored_as_floats(tmp_path):
    Image.fromarray(DISC.astype(np.float32)).save(tmp_path / "a.tif")
    assert_array_equal(read_mask(tmp_path / "a.tif"), DISC)


@pytest.mark.parametrize("alpha", [0, 1, 2])
def test_alpha_of_tiff_is_dropped_and_multiplies_nothing(tmp_path, alpha):
    pixels = np.dstack([np.full((4, 5), value, np.uint8) for value in (200, 150, 100, 128)])
    Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo={338: alpha})
    assert_array_equal(read_image(tmp_path / "a.tif"), pixels[..., :3])


def test_alpha_of_sixteen_bits_leaves_white_alone(tmp_path):
    pixels = np.dstack([np.full((4, 5), value, np.uint16) for value in (1000, 2000, 4000, 65535)])
    assert cv2.imwrite(str(tmp_path / "a.tif"), pixels[..., [2, 1, 0, 3]])
    assert read_image(tmp_path / "a.tif", 4095)[0, 0].tolist() == [62, 125, 249]


def test_colours_of_sixteen_bits_are_no_others(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("sky,0,0,0\nroad,0,255,255\n")
    pixels = np.zeros((2, 3, 3), np.uint16)
    pixels[0, 0] = (65535, 0, 0)  # blue, of which 65536 would be green
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    with pytest.raises(DataError, match="1 pixel of colours that"):
        read_classes(file).read(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", [0, 9])
def test_orientations_that_are_none_turn_nothing(tmp_path, orientation):
    stored(tmp_path / "a.png", CORNERS, orientation)
    assert read_size(tmp_path / "a.png") == (6, 8)
    assert_array_equal(read_mask(tmp_path / "a.png"), CORNERS)


def test_orientation_in_xmp_turns_nothing(tmp_path):
    text = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    stream = io.BytesIO()
    Image.fromarray(CORNERS).save(stream, "JPEG", quality=100)
    marked = b"http://ns.adobe.com/xap/1.0/\0" + text.encode()
    data = stream.getvalue()
    segment = b"\xff\xe1" + (len(marked) + 2).to_bytes(2, "big") + marked
    (tmp_path / "a.jpg").write_bytes(data[:2] + segment + data[2:])
    assert read_size(tmp_path / "a.jpg") == read_image(tmp_path / "a.jpg").shape[:2] == (6, 8)
