"""Files that hold more than 8-bit colours come back with all of it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import ExifTags, Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from domainnorm.data.images import read_image
from domainnorm.errors import DataError
from domainnorm.serve.written_images import WholeImage

SIZE = (12, 17)
KINDS = ("grey", "colour", "clear")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXIF, GPS = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo


def stored(kind, dtype, seed=0):
    channels = {"grey": (), "colour": (3,), "clear": (4,)}[kind]
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top + 1, (*SIZE, *channels)).astype(dtype)


def zero(image):
    return np.zeros((*image.values.shape[:2], image.values.shape[2]), np.float32)


def described(orientation=1):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.DateTime] = "2026:12:02 10:00:00"
    exif.get_ifd(EXIF)[ExifTags.Base.ISOSpeedRatings] = 400
    exif.get_ifd(EXIF)[ExifTags.Base.ExifImageWidth] = SIZE[1]
    exif.get_ifd(GPS)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_unchanged_image_has_the_values_that_the_file_has(suffix, kind, dtype, tmp_path):
    if (suffix, kind, dtype) == (".tif", "clear", np.uint8):  # as OpenCV would multiply them
        Image.fromarray(stored(kind, dtype)[..., [2, 1, 0, 3]]).save(tmp_path / "a.tif")
    else:
        cv2.imwrite(str(tmp_path / f"a{suffix}"), stored(kind, dtype))
    image = WholeImage.read(tmp_path / f"a{suffix}", 65535)
    assert image.values.dtype == dtype
    assert image.grey == (kind == "grey")
    image.changed(zero(image)).write(tmp_path / "made" / f"b{suffix}")
    again = WholeImage.read(tmp_path / "made" / f"b{suffix}", 65535)
    expected = stored(kind, dtype).reshape(*SIZE, -1)
    colours = expected[..., 2::-1] if kind != "grey" else expected
    for one in (image, again):
        assert_array_equal(one.values, colours)
        if kind == "clear":
            assert_array_equal(one.alpha, expected[..., 3])
        else:
            assert one.alpha is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_other_programs_read_what_is_written(suffix, kind, tmp_path):
    for dtype in (np.uint8, np.uint16):
        file = tmp_path / f"{np.dtype(dtype)}{suffix}"
        cv2.imwrite(str(tmp_path / f"a{suffix}"), stored(kind, dtype))
        WholeImage.read(tmp_path / f"a{suffix}", 65535).write(file)
        assert cv2.imread(str(file), cv2.IMREAD_UNCHANGED).dtype == dtype
        with Image.open(file) as image:
            image.load()
            assert image.size == SIZE[::-1]


@pytest.mark.parametrize("white", [4095, 65535])
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_networks_see_16_bits_as_in_training(kind, white, tmp_path):
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), stored(kind, np.uint16) // (65536 // (white + 1)))
    assert_array_equal(WholeImage.read(file, white).pixels, read_image(file, white))


@pytest.mark.parametrize("white", [4095, 65535])
def test_change_is_added_in_16_bits(white):
    values = np.full((2, 2, 3), white // 2, np.uint16)
    image = WholeImage(values, white, None, {})
    made = image.changed(np.full((2, 2, 3), 10.4, np.float32))
    assert made.values.dtype == np.uint16
    assert_array_equal(made.values, round(white // 2 + 10.4 * white / 255))
    far = image.changed(np.full((2, 2, 3), 1000, np.float32))
    assert_array_equal(far.values, white)
    assert_array_equal(image.changed(np.full((2, 2, 3), -1000, np.float32)).values, 0)


def test_values_beyond_white_stay():
    values = np.full((2, 2, 1), 5000, np.uint16)
    image = WholeImage(values, 4095, None, {})
    assert_array_equal(image.changed(np.zeros((2, 2, 1), np.float32)).values, 5000)


def test_grey_images_stay_grey_by_a_grey_change_and_get_colours_by_another():
    image = WholeImage(np.full((2, 2, 1), 90, np.uint8), 255, None, {"icc_profile": b"of greys"})
    assert image.changed(np.ones((2, 2, 1), np.float32)).values.tolist() == [[[91]] * 2] * 2
    made = image.changed(np.full((2, 2, 3), (1, 2, 3), np.float32))
    assert made.values[0, 0].tolist() == [91, 92, 93]
    assert "icc_profile" not in made.about


def test_colours_become_grey_by_a_grey_change():
    image = WholeImage(np.full((2, 2, 3), (200, 100, 50), np.uint8), 255, None, {})
    made = image.changed(np.zeros((2, 2, 1), np.float32))
    assert_array_equal(made.values, 124)
    assert made.values.shape == (2, 2, 3)


def test_enlarged_image_is_as_large_in_inches(tmp_path):
    options = {"exif": described(), "dpi": (300, 300)}
    Image.fromarray(stored("clear", np.uint8)).save(tmp_path / "a.png", **options)
    image = WholeImage.read(tmp_path / "a.png", 65535)
    made = image.changed(np.zeros((48, 68, 3), np.float32), 4)
    made.write(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as again:
        assert (again.size, again.mode) == ((68, 48), "RGBA")
        assert again.info["dpi"] == pytest.approx((1200, 1200), rel=1e-3)
        assert again.getexif().get_ifd(EXIF)[ExifTags.Base.ExifImageWidth] == 68


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_what_a_file_says_beside_its_pixels_is_kept(suffix, depth, tmp_path):
    Image.fromarray(stored("colour", np.uint8)).save(
        tmp_path / "a.png", exif=described(), icc_profile=PROFILE, dpi=(300, 150)
    )
    told = WholeImage.read(tmp_path / "a.png", 65535)
    made = WholeImage(stored("colour", depth), np.iinfo(depth).max, None, told.about)
    made.write(tmp_path / f"b{suffix}")
    for _ in range(2):  # and again what was kept
        with Image.open(tmp_path / f"b{suffix}") as image:
            exif = image.getexif()
            assert image.info["icc_profile"] == PROFILE
            assert [round(one) for one in image.info["dpi"]] == [300, 150]
            assert exif[ExifTags.Base.Make] == "Maker"
            assert exif.get_ifd(EXIF)[ExifTags.Base.ISOSpeedRatings] == 400
            assert exif.get_ifd(GPS)[ExifTags.GPS.GPSLatitudeRef] == "N"
        WholeImage.read(tmp_path / f"b{suffix}", 65535).write(tmp_path / f"b{suffix}")


def test_place_alone_is_kept(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(GPS)[ExifTags.GPS.GPSLatitudeRef] = "N"
    # As bytes: Pillow takes an object with nothing else in it for an empty one.
    Image.new("L", (8, 8)).save(tmp_path / "a.png", exif=exif.tobytes())
    for suffix in (".png", ".tif"):
        WholeImage.read(tmp_path / "a.png", 65535).write(tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as image:
            assert image.getexif().get_ifd(GPS)[ExifTags.GPS.GPSLatitudeRef] == "N"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_images_are_upright_and_no_longer_say_how_to_turn_them(suffix, orientation, tmp_path):
    file, made = tmp_path / f"a{suffix}", tmp_path / "b.png"
    alpha = suffix != ".jpg"
    drawn = Image.fromarray(stored("clear" if alpha else "colour", np.uint8))
    drawn.save(file, exif=described(orientation))
    WholeImage.read(file, 65535).write(made)
    assert_array_equal(read_image(made), read_image(file))
    with Image.open(made) as image:
        exif = image.getexif()
        assert exif[ExifTags.Base.Make] == "Maker"
        assert ExifTags.Base.Orientation not in exif
        if alpha:
            turned = drawn.copy()
            turned.getexif()[ExifTags.Base.Orientation] = orientation
            expected = np.asarray(ImageOps.exif_transpose(turned))[..., 3]
            assert_array_equal(np.asarray(image)[..., 3], expected)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("kind", KINDS)
def test_16_bits_are_upright_as_networks_see_them(kind, suffix, orientation, tmp_path):
    values = stored(kind, np.uint16)
    order = {"grey": [0], "colour": [2, 1, 0], "clear": [2, 1, 0]}[kind]
    rgb = values.reshape(*SIZE, -1)[..., order]
    alpha = values[..., 3] if kind == "clear" else None
    plain = WholeImage(rgb, 65535, alpha, {})
    file = tmp_path / f"a{suffix}"
    WholeImage(rgb, 65535, alpha, {"exif": described(orientation).tobytes()}).write(file)
    image = WholeImage.read(file, 65535)
    assert_array_equal(image.pixels, read_image(file))
    turns = {1: 0, 3: 2, 6: -1, 8: 1}[orientation]
    assert_array_equal(image.values, np.rot90(plain.values, turns))
    if alpha is not None:
        assert_array_equal(image.alpha, np.rot90(alpha, turns))


def test_bmp_keeps_its_resolution(tmp_path):
    Image.fromarray(stored("colour", np.uint8)).save(tmp_path / "a.bmp", dpi=(200, 200))
    WholeImage.read(tmp_path / "a.bmp", 65535).write(tmp_path / "b.bmp")
    with Image.open(tmp_path / "b.bmp") as image:
        assert image.info["dpi"] == pytest.approx((200, 200), rel=1e-2)
    assert_array_equal(read_image(tmp_path / "b.bmp"), read_image(tmp_path / "a.bmp"))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_nothing_is_said_of_a_file_that_says_nothing(suffix, tmp_path):
    cv2.imwrite(str(tmp_path / f"a{suffix}"), stored("colour", np.uint8))
    about = WholeImage.read(tmp_path / f"a{suffix}", 65535).about
    assert not about.keys() - {"dpi"}
    assert suffix in (".tif", ".bmp") or not about  # OpenCV always writes one there


def test_transparent_colours_become_an_alpha_channel(tmp_path):
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 7
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=(7, 7, 7))
    WholeImage.read(tmp_path / "a.png", 65535).write(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert np.asarray(image)[..., 3].tolist() == [[0, 255], [255, 255]]


def test_image_with_alpha_is_no_bmp():
    image = WholeImage(np.zeros((2, 2, 3), np.uint8), 255, np.zeros((2, 2), np.uint8), {})
    with pytest.raises(DataError, match=r"a\.bmp: transparency, which BMP loses"):
        image.write(Path("a.bmp"))


@pytest.mark.parametrize(
    ("mode", "message"),
    [("CMYK", "has channels C, M, Y, K"), ("LAB", "has channels L, A, B"), ("F", "has channels F")],
)
def test_other_channels_are_refused(mode, message, tmp_path):
    Image.new(mode, (8, 8)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=f"a.tif: {message}"):
        WholeImage.read(tmp_path / "a.tif", 65535)


def test_several_frames_are_refused(tmp_path):
    one = Image.new("L", (8, 8))
    one.save(tmp_path / "a.tif", save_all=True, append_images=[one])
    with pytest.raises(DataError, match=r"a\.tif: has 2 frames"):
        WholeImage.read(tmp_path / "a.tif", 65535)


def test_a_geotiff_keeps_its_places(tmp_path):
    tags = ImageFileDirectory_v2()
    given = {
        33550: (12, (10.0, 10.0, 0.0)),
        33922: (12, (2.0, 1.0, 0.0, 400000.0, 5600000.0, 0.0)),
        34264: (12, (10.0, 0.0, 0.0, 4e5, 0.0, -10.0, 0.0, 56e5, *(0.0,) * 7, 1.0)),
        34735: (3, (1, 1, 0, 1, 1024, 0, 1, 1)),
        34737: (2, "WGS 84|"),
        42112: (2, "<Item>Zone</Item>"),
        42113: (2, "0"),
    }
    for tag, (kind, value) in given.items():
        tags.tagtype[tag] = kind
        tags[tag] = value
    image = Image.new("RGB", (6, 4), (90, 60, 30))
    image.save(tmp_path / "a.tif", tiffinfo=tags)
    whole = WholeImage.read(tmp_path / "a.tif", 255)
    whole.write(tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as made:
        assert {tag: made.tag_v2[tag] for tag in given} == {k: v for k, (_, v) in given.items()}
    whole.changed(np.zeros((8, 12, 3), np.float32), 2).write(tmp_path / "c.tif")
    with Image.open(tmp_path / "c.tif") as made:
        found = made.tag_v2
        assert found[33550] == (5.0, 5.0, 0.0)
        # Column 4 and row 2 of the enlarged image is where 2 and 1 were.
        assert found[33922] == (4.0, 2.0, 0.0, 400000.0, 5600000.0, 0.0)
        before, after = (np.reshape(one, (4, 4)) for one in (given[34264][1], found[34264]))
        assert_array_equal(after @ [4, 2, 0, 1], before @ [2, 1, 0, 1])
        assert found[34737] == "WGS 84|"
    whole.write(tmp_path / "d.png")  # which has no place for it
    image.save(tmp_path / "e.tif", tiffinfo={**dict(tags), 274: 6})
    assert WholeImage.read(tmp_path / "e.tif", 255).places == {}  # it was turned


@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [
        (33550, 12, 10.0),
        (33550, 2, "ten"),
        (33550, 3, (10, 10, 0)),
        (34264, 12, (1.0, 2.0, 3.0)),
        (33922, 2, "x"),
    ],
)
def test_places_that_are_none_are_left_out_as_a_whole(tmp_path, tag, kind, value):
    tags = ImageFileDirectory_v2()
    for key, (of, one) in {34737: (2, "WGS 84|"), tag: (kind, value)}.items():
        tags.tagtype[key] = of
        tags[key] = one
    Image.new("RGB", (6, 4), (90, 60, 30)).save(tmp_path / "a.tif", tiffinfo=tags)
    whole = WholeImage.read(tmp_path / "a.tif", 255)
    assert whole.places == {}
    whole.changed(np.zeros((8, 12, 3), np.float32), 2).write(tmp_path / "b.tif")


def test_places_of_the_middle_of_pixels_stay_where_they_are(tmp_path):
    tags = ImageFileDirectory_v2()
    given = {
        33922: (12, (0.0, 0.0, 0.0, 500.0, 900.0, 0.0)),
        34264: (12, (10.0, 0.0, 0.0, 500.0, 0.0, -10.0, 0.0, 900.0, *(0.0,) * 7, 1.0)),
        34735: (3, (1, 1, 0, 1, 1025, 0, 1, 2)),
    }
    for tag, (kind, value) in given.items():
        tags.tagtype[tag] = kind
        tags[tag] = value
    Image.new("RGB", (6, 4), (90, 60, 30)).save(tmp_path / "a.tif", tiffinfo=tags)
    whole = WholeImage.read(tmp_path / "a.tif", 255)
    found = whole.changed(np.zeros((16, 24, 3), np.float32), 4).places
    # The middle of the first pixel lies between columns 1 and 2 of four.
    assert found[33922][1] == (1.5, 1.5, 0.0, 500.0, 900.0, 0.0)
    assert_array_equal(np.reshape(found[34264][1], (4, 4)) @ [1.5, 1.5, 0, 1], [500, 900, 0, 1])


def test_notes_of_gdal_keep_letters_beyond_ascii(tmp_path):
    tags = ImageFileDirectory_v2()
    tags.tagtype[42112] = 2
    tags[42112] = "Zürich".encode()
    Image.new("RGB", (6, 4), (90, 60, 30)).save(tmp_path / "a.tif", tiffinfo=tags)
    WholeImage.read(tmp_path / "a.tif", 255).write(tmp_path / "b.tif")
    assert "Zürich".encode() in (tmp_path / "b.tif").read_bytes()
