"""Task translation through the real command line: trained, tested, drawn, and images written."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from domainnorm.data.datasets import Scans
from domainnorm.errors import RecipeError
from domainnorm.evaluation import Translations, load_evaluated
from domainnorm.run import run_matrix
from domainnorm.serve import load_stored
from domainnorm.serve.stored import FileModel
from domainnorm.tasks.translator import PixelTranslator, style_of_domains
from tests.run import tiny
from tests.run.shops import run_folder, write_recipe, write_shops
from tests.run.tiny import TRANSFER, assert_same_weights, call, metrics, run

WORDS = (
    "task={name: translation, width: 4}",
    "norm=cin",
    "method=stylize",
    "backbone.pretrained=false",
    "compare=[]",
    "evaluation.resamples=10",
)
PAIR = "clean", "colour_cast"


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"), *WORDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images of other sizes, in two formats, and a grey one."""
    place = tmp_path_factory.mktemp("images")
    scans = Scans(per_domain=40)
    for number, name in enumerate(("one.png", "sub/two.jpg")):
        (place / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(place / name), cv2.resize(scans.image(number), (50, 40 + number)))
    cv2.imwrite(str(place / "grey.tif"), np.full((30, 31), 90, np.uint8))
    return place


@pytest.mark.slow
def test_run_has_the_method_alone(translated):
    assert {method for method, _ in metrics(translated)} == {"stylize"}


def test_metrics_are_of_each_pair_of_domains(translated):
    found = metrics(translated)
    for own, asked in (PAIR, PAIR[::-1]):
        values = found["stylize", own]
        names = ("style_accuracy", "look_accuracy", "round_trip_ssim", "distance")
        for name in (*names, "distance_before", "distance_halves"):
            assert values[f"{name}/{asked}"] == values[name]
            assert f"{name}/{own}" not in values
        assert 0 <= values["style_accuracy_real"] <= 1
        assert values["n"] > 0


def test_tables_tell_each_pair(translated):
    text = (translated / "results.md").read_text()
    assert "clean as colour_cast, stylize: taken for it by style " in text
    assert "colour_cast as clean, stylize: taken for it by style " in text


def test_translations_are_drawn_and_stored(translated):
    (sheet,) = (translated / "figures").glob("translations_*.png")
    page = (translated / "report.html").read_text()
    assert "images of clean, colour_cast look like in the style of each other?" in page
    assert "in the style of each domain" in page
    assert sheet.stat().st_size > 0
    stage = translated / TRANSFER / "seed0/stylize"
    one = load_evaluated(stage / "predictions-clean.safetensors")
    assert isinstance(one, Translations)
    assert set(one.domain.tolist()) == {0}


def test_what_is_stored_is_the_small_network_alone(translated):
    stored = load_file(translated / TRANSFER / "seed0/stylize/model.safetensors")
    assert sum(tensor.numel() for tensor in stored.values()) < 5000
    assert any(name.startswith("backbone.stem") for name in stored)


def test_domains_have_rows_of_their_own(translated):
    stored = load_file(translated / TRANSFER / "seed0/stylize/model.safetensors")
    tables = [tensor for name, tensor in stored.items() if name.endswith("modulation.scale")]
    assert tables
    assert all(not table[0].equal(table[1]) for table in tables)


def test_testing_again_gives_the_same(translated, capsys):
    assert call("test", str(translated)) == 0
    again = " ".join(capsys.readouterr().out.split())
    for line in (translated / "results.md").read_text().splitlines():
        if "taken for it by style" in line:
            assert line.strip() in again


def test_same_recipe_gives_the_same_weights(translated, tmp_path):
    assert_same_weights(translated, run(tmp_path, *WORDS))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("method=source_only", "'source_only' is for tasks with labels to"),
        ("data.target=[]", "data.source, data.target: got 1 domain"),
        ("data.shots=5", "data.shots: counts images of a class, and task 'translation' reads"),
        ("data.rows=one", "data.rows: got 'one', and task 'translation' asks for the style"),
        ("encoder=style", "encoder: is given, and task 'translation'"),
        ("encoder=text condition=embedding", "encoder: 'text' estimates domains from attributes"),
        ("norm=in", "norm: none of them looks at the domain"),
        ("evaluation.selection=oracle", "'oracle' compares with labels"),
        ("evaluation.selection=infomax", "'infomax' is for"),
        ("task.stride=3", "task.stride"),
        ("task.blocks=0", "task.blocks: got 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(word, message, capsys):
    assert call("check", "quickstart", *tiny.WORDS, *WORDS, *word.split()) == 2
    assert message in capsys.readouterr().err


def test_other_tasks_refuse_the_method(capsys):
    assert call("check", "quickstart", "method=stylize") == 2
    assert "'stylize' is for images to translate" in capsys.readouterr().err


def test_images_are_written_in_their_size(translated, folder, tmp_path, capsys):
    place = tmp_path / "made"
    words = ("--to", "colour_cast", "--between", *PAIR, "--output", str(place))
    assert call("translate", str(translated), str(folder), *words) == 0
    said = capsys.readouterr().out
    assert "3 images, 1 of them as PNG, which loses nothing" in said
    made = {file.relative_to(place).as_posix() for file in place.rglob("*.*")}
    sheets = {"sheet.png", "between-clean-colour_cast.png"}
    assert made == {"one.png", "sub/two.png", "grey.tif", *sheets}
    assert cv2.imread(str(place / "one.png")).shape == (40, 50, 3)
    assert cv2.imread(str(place / "sub/two.png")).shape == (41, 50, 3)
    assert cv2.imread(str(place / "grey.tif")).shape == (30, 31, 3)


def test_small_change_leaves_pixels_nearly_as_they_are(translated, folder, tmp_path):
    """A network of a few steps is near the identity, and files keep their detail."""
    place = tmp_path / "made"
    words = ("--to", "clean", "--output", str(place))
    assert call("translate", str(translated), str(folder / "one.png"), *words) == 0
    one, other = (cv2.imread(str(at / "one.png")).astype(int) for at in (folder, place))
    assert abs(one - other).mean() < 12


def test_what_trains_and_what_is_written_are_changed_alike(translated, folder, tmp_path):
    stored = load_stored(translated / TRANSFER / "seed0/stylize")
    made = PixelTranslator(stored.model, FileModel(stored).preprocessing)
    pixels = cv2.imread(str(folder / "one.png"))[..., ::-1].copy()
    expected = made(pixels, style_of_domains(stored.model, torch.eye(2)))[1]
    words = ("--to", stored.model.domain_names[1], "--output", str(tmp_path / "made"))
    assert call("translate", str(translated), str(folder / "one.png"), *words) == 0
    found = cv2.imread(str(tmp_path / "made/one.png"))[..., ::-1]
    assert np.abs(found.astype(int) - expected).max() <= 1  # halves are rounded to even


def test_default_place_is_in_the_stage_and_is_not_overwritten(translated, folder, capsys):
    words = ("translate", str(translated), str(folder), "--to", "clean")
    assert call(*words) == 0
    place = translated / TRANSFER / f"seed0/stylize/translations/{folder.name}-clean"
    assert (place / "sheet.png").exists()
    before = (place / "one.png").stat().st_mtime_ns
    assert call(*words) == 1
    assert "holds files already" in capsys.readouterr().err
    assert (place / "one.png").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "colourcast"), "--to: unknown domain 'colourcast': did you mean 'colour_cast'"),
        (("--to", "clean", "--between", "clean", "x"), "--between: unknown domain 'x'"),
        (("--to", "clean", "--between", "clean", "clean"), "--between: 'clean' twice"),
    ],
)
def test_domains_that_cannot_be_meant_are_refused(words, message, translated, folder, capsys):
    assert call("translate", str(translated), str(folder), *words) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "shape"), [("deep.png", (30, 30)), ("deep.tif", (30, 31, 3)), ("clear.png", (9, 8, 4))]
)
def test_depth_and_transparency_stay(name, shape, translated, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    cv2.imwrite(str(tmp_path / name), pixels)
    words = ("--to", "clean", "--output", str(tmp_path / "made"))
    assert call("translate", str(translated), str(tmp_path / name), *words) == 0
    made = cv2.imread(str(tmp_path / "made" / name), cv2.IMREAD_UNCHANGED)
    assert made.dtype == np.uint16
    assert made.shape == (*shape[:2], 4 if name == "clear.png" else 3)
    if len(shape) == 3:
        assert len(np.unique(made % 257)) > 100  # not 8 bits made larger
    if name == "clear.png":
        assert np.array_equal(made[..., 3], pixels[..., 3])


def test_inks_are_refused(translated, tmp_path, capsys):
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.tif")
    words = ("--to", "clean", "--output", str(tmp_path / "made"))
    assert call("translate", str(translated), str(tmp_path / "a.tif"), *words) == 1
    assert "a.tif: has channels C, M, Y, K" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.png", "a.jpg"), "a.png would be written to a.png, as a.jpg; rename the image"),
        (("a.png", "sheet.jpg"), "sheet.jpg would be written to sheet.png, as the sheet"),
        (("a.png", "between-clean-colour_cast.png"), "as the sheet that is drawn"),
    ],
)
def test_images_are_not_written_over_each_other_or_a_sheet(
    names, message, translated, tmp_path, capsys
):
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    words = ("--to", "clean", "--between", *PAIR, "--output", str(tmp_path / "made"))
    assert call("translate", str(translated), str(tmp_path), *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_output_that_is_a_file_is_refused(translated, folder, tmp_path, capsys):
    place = tmp_path / "made"
    place.write_text("mine")
    words = ("--to", "clean", "--output", str(place))
    assert call("translate", str(translated), str(folder), *words) == 1
    assert "made: is a file, expected a folder" in capsys.readouterr().err


def test_matrix_is_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(RecipeError, match="a matrix trains on labels, and 'translation' has none"):
        run_matrix(tiny.recipe(*WORDS), tmp_path, "both")
    assert not list(tmp_path.iterdir())


def test_runs_of_other_tasks_are_refused(tmp_path, folder, capsys):
    other = run(tmp_path, "method=source_only", "compare=[]", "trainer.max_epochs=1")
    assert call("translate", str(other), str(folder), "--to", "clean") == 1
    assert "expected 'translation'" in capsys.readouterr().err


def test_predictions_and_streams_are_for_other_tasks(translated, folder, capsys):
    for words in (("predict", str(translated), str(folder)), _stream(translated, folder)):
        assert call(*words, "--domain", "clean") == 1
        assert "`domainnorm translate" in capsys.readouterr().err


def _stream(translated, folder):
    return "adapt", str(translated), "method=neo", "--stream", str(folder)


def test_exported_program_has_the_domain_as_an_input(translated, tmp_path):
    words = ("--format", "torch_export", "--output", str(tmp_path))
    assert call("export", str(translated), *words) == 0
    (archive,) = tmp_path.glob("*.pt2")
    program = torch.export.load(archive).module()
    image = torch.rand(2, 3, 32, 32) - 0.5
    one, other = (program(image, torch.full((2,), label)) for label in (0, 1))
    assert one.shape == image.shape
    assert not torch.allclose(one, other)
    card = next(tmp_path.glob("*.md")).read_text()
    assert "gives images the style of a domain on `clean`, `colour_cast`" in card
    assert "style_accuracy" in card


def test_styles_of_single_images_need_an_embedding(translated, folder, capsys):
    words = ("translate", str(translated), str(folder), "--to", str(folder / "one.png"))
    assert call(*words) == 1
    assert "gives the styles of domains: clean, colour_cast" in capsys.readouterr().err


@pytest.fixture(scope="module")
def by_image(tmp_path_factory):
    words = (
        "norm={statistics: instance, modulation: hyper}",
        "encoder=style",
        "condition=embedding",
    )
    return run(tmp_path_factory.mktemp("run"), *WORDS, *words)


def test_norms_that_read_an_embedding_are_scored_by_the_domains_means(by_image):
    values = metrics(by_image)["stylize", "clean"]
    assert 0 <= values["style_accuracy/colour_cast"] <= 1
    stored = load_file(by_image / TRANSFER / "seed0/stylize/model.safetensors")
    assert bool(stored["encoder.gaussians.mean"].any())


@pytest.mark.slow
def test_images_get_the_style_of_an_image(by_image, folder, tmp_path):
    made = {}
    colours = {"red": (0, 0, 200), "blue": (200, 0, 0)}
    for name, colour in colours.items():
        cv2.imwrite(str(tmp_path / f"{name}.v1.png"), np.full((32, 32, 3), colour, np.uint8))
        place = tmp_path / f"as_{name}"
        words = ("--to", str(tmp_path / f"{name}.v1.png"), "--output", str(place))
        assert call("translate", str(by_image), str(folder), *words) == 0
        assert (place / "sheet.png").stat().st_size > 0
        made[name] = cv2.imread(str(place / "one.png")).astype(int)
    assert abs(made["red"] - made["blue"]).max() > 0


def test_images_get_the_style_of_a_domain_by_its_mean(by_image, folder, tmp_path):
    place = tmp_path / "made"
    words = ("--to", "clean", "--between", *PAIR, "--output", str(place))
    assert call("translate", str(by_image), str(folder), *words) == 0
    assert (place / "between-clean-colour_cast.png").exists()


def test_program_that_would_give_images_their_own_style_is_refused(by_image, tmp_path, capsys):
    words = ("--format", "torch_export", "--output", str(tmp_path / "made"))
    assert call("export", str(by_image), *words) != 0
    assert "norms take the style of an image" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.fixture(scope="module")
def by_words(tmp_path_factory):
    """Two shops with a note on each picture, and a column of hours."""
    root = tmp_path_factory.mktemp("shops")
    write_shops(root, "note", lambda n, shop: "red light" if shop == "shop_a" else "blue dusk")
    made = {}
    for name, attributes in (("one", "note"), ("two", "note, hour")):
        asked = write_recipe(root, attributes, "text")
        words = (*WORDS, "norm={statistics: instance, modulation: hyper}", "condition=embedding")
        words = (*words, "task={name: translation, width: 4}", "augment={}", "data.batch_size=8")
        made[name] = run_folder(asked, tmp_path_factory.mktemp("runs"), *words)
    return made


@pytest.mark.slow
def test_images_get_the_style_of_words(by_words, folder, tmp_path):
    pixels = {}
    said = {"red": "red light", "blue": "a blue dusk", "again": "note=red light"}
    for name, text in said.items():
        place = tmp_path / name
        words = ("--to", text, "--output", str(place))
        assert call("translate", str(by_words["one"]), str(folder), *words) == 0
        assert (place / "sheet.png").stat().st_size > 0
        pixels[name] = cv2.imread(str(place / "one.png")).astype(int)
    assert np.array_equal(pixels["red"], pixels["again"])
    assert abs(pixels["red"] - pixels["blue"]).max() > 0


def test_styles_of_domains_are_still_there_beside_words(by_words, folder, tmp_path):
    place = tmp_path / "made"
    words = ("--to", "shop_b", "--between", "shop_a", "shop_b", "--output", str(place))
    assert call("translate", str(by_words["one"]), str(folder), *words) == 0
    assert (place / "between-shop_a-shop_b.png").exists()
    values = metrics(by_words["one"])["stylize", "shop_a"]
    assert 0 <= values["style_accuracy/shop_b"] <= 1


def test_words_name_a_folder_that_every_disk_takes(by_words, folder):
    assert call("translate", str(by_words["one"]), str(folder), "--to", "red/light: ../blue") == 0
    places = list(by_words["one"].glob("stages/*/*/*/translations/*"))
    assert [place.name for place in places] == [f"{folder.name}-red_light_.._blue"]


@pytest.mark.parametrize(
    ("run_of", "text", "told"),
    [
        ("one", "xyzzy", "--to: nothing is known of 'xyzzy'"),
        ("one", "note", "--to: nothing is known of 'note'"),
        ("two", "red light", "--to: unknown column 'red light'"),
        ("two", "place=3", "--to: unknown column 'place'"),
        ("two", "note=xyzzy", "--to: nothing is known of 'xyzzy'"),
        ("two", "note=red light, hour=two", "--to: nothing is known of 'two'; training images"),
        ("two", "hour=8, hour=9", "names a column twice"),
        ("one", "SHOP_B", "--to: unknown domain 'SHOP_B': did you mean 'shop_b'?"),
        ("one", "photos/red.png", "photos/red.png is an image, and this run gives the styles of"),
    ],
)
def test_words_that_nothing_is_known_of_are_refused(by_words, folder, run_of, text, told, capsys):
    assert call("translate", str(by_words[run_of]), str(folder), "--to", text) == 1
    assert told in capsys.readouterr().err


def test_words_of_several_columns(by_words, folder, tmp_path):
    words = ("--to", "note=red light, hour=9", "--output", str(tmp_path / "made"))
    assert call("translate", str(by_words["two"]), str(folder), *words) == 0


@pytest.fixture(scope="module")
def in_tiles(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"), *WORDS, "norm=tin", "trainer.max_epochs=3")


@pytest.mark.slow
def test_tiles_of_a_large_image_share_the_moments_of_a_small_copy(in_tiles, tmp_path, capsys):
    """The image is one pattern over and over, so that its parts have the moments of the whole."""
    pattern = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "one.png"), np.tile(pattern, (4, 6, 1)))
    words = ("--to", "colour_cast", "--tile", "64", "--output", str(tmp_path / "made"))
    assert call("translate", str(in_tiles), str(tmp_path / "images"), *words) == 0
    assert "own moments" not in capsys.readouterr().out
    made = cv2.imread(str(tmp_path / "made" / "one.png")).astype(int)
    middle = made[32:-32, 32:-32]
    assert abs(middle[:, :32] - middle[:, 32:64]).max() <= 1
    assert abs(middle[:32] - middle[32:64]).max() <= 1
    assert abs(made - np.tile(pattern, (4, 6, 1))).max() > 0


@pytest.mark.slow
def test_tiny_image_is_seen_whole_beside_tiles(translated, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for name, shape in (("one", (1, 1, 3)), ("two", (2, 1, 3)), ("three", (3, 3, 3))):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.full(shape, 90, np.uint8))
    words = ("--to", "colour_cast", "--tile", "64", "--output", str(tmp_path / "made"))
    assert call("translate", str(translated), str(tmp_path / "images"), *words) == 0
    assert cv2.imread(str(tmp_path / "made" / "two.png")).shape == (2, 1, 3)
    assert "own moments" not in capsys.readouterr().out


def test_tiles_see_the_pixels_of_the_file(translated, tmp_path, capsys):
    """One tile is the whole image at its own size, and not at that of the network."""
    pixels = np.random.default_rng(0).integers(0, 255, (48, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "one.png"), pixels[..., ::-1])
    words = ("--to", "colour_cast", "--tile", "64", "--output", str(tmp_path / "made"))
    assert call("translate", str(translated), str(tmp_path / "one.png"), *words) == 0
    assert "own moments" not in capsys.readouterr().out
    words = ("--to", "colour_cast", "--tile", "32", "--output", str(tmp_path / "parts"))
    assert call("translate", str(translated), str(tmp_path / "one.png"), *words) == 0
    assert "each tile was normalized by its own moments" in capsys.readouterr().out
    model = load_stored(translated).model
    low, high = model.backbone.low, model.backbone.high
    image = torch.from_numpy(pixels).movedim(2, 0) / 255 * (high - low) + low
    with torch.no_grad():
        made = (model(image[None], "colour_cast")[0] - low) / (high - low)
    found = cv2.imread(str(tmp_path / "made" / "one.png"))[..., ::-1].copy()
    assert float((torch.from_numpy(found).movedim(2, 0) / 255 - made).abs().max()) < 0.51 / 255
