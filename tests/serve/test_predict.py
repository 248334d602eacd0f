"""Images predicted by a finished run, through the console command."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from domainnorm.backbones import DomainModel
from domainnorm.cli.program import Terminated
from domainnorm.errors import DomainNormError
from domainnorm.evaluation import load_evaluated
from domainnorm.run.models import load_stored
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.run_folder import read_folder
from domainnorm.run.stage import predict as predict_tests
from domainnorm.run.stage import set_up
from domainnorm.serve import PredictOptions, predict_run
from tests.run.tiny import TRANSFER, call, recipe, run

WORDS = ("encoder=style", "data.image_size=48", "method=source_only", "compare=[]")
DOMAINS = ("clean", "colour_cast")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs"), *WORDS)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The test images of each domain as files, named by their numbers in the dataset."""
    root = tmp_path_factory.mktemp("images")
    dataset = Parts(recipe(*WORDS)).dataset
    for number, record in enumerate(dataset.records):
        if record.split == "test":
            folder = root / record.domain
            folder.mkdir(exist_ok=True)
            image = cv2.cvtColor(dataset.image(number), cv2.COLOR_RGB2BGR)
            assert cv2.imwrite(str(folder / f"{number}.png"), image)
    return root


def predict(run_folder, place, output, *words):
    return call("predict", str(run_folder), str(place), "--output", str(output), *words)


def lines_of(folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def probabilities_of(lines):
    """Number of an image in the dataset -> its probabilities, in the order of the numbers."""
    found = {
        int(line["image"].rpartition("/")[2].removesuffix(".png")): [
            float(value) for name, value in line.items() if name.startswith("probability_")
        ]
        for line in lines
    }
    return sorted(found), torch.tensor([found[number] for number in sorted(found)])


def of_tests(run_folder, domain, *overrides):
    """What the tests of a run say of a domain, under other keys of it."""
    parts = Parts(read_folder(run_folder, overrides)[0])
    bench = set_up(parts, plan_stages(parts.recipe)[0], run_folder, finished=True)
    return predict_tests(bench)[domain]


@pytest.mark.parametrize("domain", DOMAINS)
def test_told_domain_gives_what_the_tests_of_the_run_have_stored(trained, images, domain, tmp_path):
    output = tmp_path / "out"
    assert predict(trained, images / domain, output, "--domain", domain) == 0
    stored = load_evaluated(
        trained / TRANSFER / f"seed0/source_only/predictions-{domain}.safetensors"
    )
    numbers, probabilities = probabilities_of(lines_of(output))
    assert numbers == stored.index.tolist()
    torch.testing.assert_close(probabilities, stored.probabilities, rtol=0, atol=2e-6)
    names = load_stored(trained).class_names
    assert [line["prediction"] for line in lines_of(output)] == [
        names[k] for k in stored.probabilities.argmax(1)
    ]


@pytest.mark.parametrize(
    ("policy", "far"), [("estimate", None), ("mixture", None), ("mixture", "mean")]
)
def test_estimated_domains_give_what_tests_with_that_condition_say(
    trained, images, policy, far, tmp_path
):
    output = tmp_path / "out"
    words = ("--far", far) if far else ()
    assert predict(trained, images, output, "--unseen", policy, "--batch-size", "7", *words) == 0
    asked = [f"condition={policy}", *([f"far={far}"] if far else [])]
    for domain in DOMAINS:
        wanted = of_tests(trained, domain, *asked)
        lines = [line for line in lines_of(output) if line["image"].startswith(domain)]
        numbers, probabilities = probabilities_of(lines)
        assert numbers == wanted.index.tolist()
        torch.testing.assert_close(probabilities, wanted.probabilities, rtol=0, atol=5e-6)


def test_precision_is_that_of_the_tests(trained, images, tmp_path):
    folder = tmp_path / "narrow"
    place = folder / TRANSFER / "seed0" / "source_only"
    place.mkdir(parents=True)
    for file in ("run.json", f"{TRANSFER}/seed0/source_only/model.safetensors"):
        (folder / file).write_bytes((trained / file).read_bytes())
    text = (trained / "recipe.yaml").read_text()
    assert "precision: 32-true" in text
    (folder / "recipe.yaml").write_text(text.replace("32-true", "bf16-mixed"))
    for name, run_folder in (("bf16", folder), ("float", trained)):
        assert predict(run_folder, images / "clean", tmp_path / name, "--domain", "clean") == 0
    found, other = (probabilities_of(lines_of(tmp_path / name))[1] for name in ("bf16", "float"))
    wanted = of_tests(folder, "clean").probabilities
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
    assert (found - other).abs().max() > 1e-5


def test_order_and_batches_make_no_difference(trained, images, tmp_path):
    files = sorted(images.glob("*/*.png"))
    (images / "list.txt").write_text("\n".join(map(str, files[::-1])))
    assert predict(trained, images / "list.txt", tmp_path / "one", "--batch-size", "3") == 0
    assert predict(trained, images, tmp_path / "other") == 0
    one, other = (probabilities_of(lines_of(tmp_path / name)) for name in ("one", "other"))
    assert one[0] == other[0]
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=5e-6)


def test_table_says_how_the_domain_was_found(trained, images, tmp_path, capsys):
    table = images / "domains.csv"
    numbers = [file.name for file in sorted((images / "clean").iterdir())[:3]]
    table.write_text(
        "image,domain,hour\n"
        + "".join(
            f"clean/{n},{d},9\n" for n, d in zip(numbers, ("clean", "", "colour_cast"), strict=True)
        )
    )
    assert predict(trained, table, tmp_path / "out") == 0
    lines = lines_of(tmp_path / "out")
    assert [line["domain_by"] for line in lines] == ["told", "mixture", "told"]
    assert [line["domain"] for line in lines] == ["clean", "clean", "colour_cast"]
    assert [line["is_known"] for line in lines] == ["", "1", ""]
    assert float(lines[1]["domain_weight"]) > 0.5
    said = capsys.readouterr().out
    assert "unused columns: hour\n" in said
    assert (
        "domain: told (2), estimated, mixed by weight (1)\n  clean  2\n  colour_cast  1\n" in said
    )


def test_model_is_not_changed(trained, images, tmp_path):
    weights = load_stored(trained).place / "model.safetensors"
    before = weights.read_bytes()
    assert predict(trained, images, tmp_path / "out", "--unseen", "batch") == 0
    assert weights.read_bytes() == before


def test_images_unlike_all_domains_are_counted(trained, images, tmp_path, capsys):
    folder = tmp_path / "negatives"
    folder.mkdir()
    for file in sorted((images / "clean").iterdir())[:6]:
        cv2.imwrite(str(folder / file.name), 255 - cv2.imread(str(file)))
    assert predict(trained, folder, tmp_path / "out") == 0
    assert "near no known domain, by the encoder: 6 images" in capsys.readouterr().out
    assert {line["is_known"] for line in lines_of(tmp_path / "out")} == {"0"}
    assert {line["domain"] for line in lines_of(tmp_path / "out")} <= set(DOMAINS)


def test_images_unlike_all_domains_get_what_is_asked_for_them(trained, images, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for file in sorted((images / "clean").iterdir())[:4]:
        (folder / file.name).write_bytes(file.read_bytes())
        cv2.imwrite(str(folder / f"{file.stem}00000.png"), 255 - cv2.imread(str(file)))
    for name, words in (("far", ("--far", "mean")), ("mean", ("--unseen", "mean"))):
        assert predict(trained, folder, tmp_path / name, *words) == 0
    far, mean = lines_of(tmp_path / "far"), lines_of(tmp_path / "mean")
    assert {line["domain_by"] for line in far} == {"mixture", "mean"}
    for line, other in zip(far, mean, strict=True):
        assert (line["domain_by"] == "mean") == (line["is_known"] == "0") == (not line["domain"])
        if not line["domain"]:
            assert float(line["confidence"]) == pytest.approx(float(other["confidence"]), abs=5e-6)


def test_single_image_is_predicted_into_the_folder_of_the_stage(trained, images, capsys):
    file = next((images / "clean").iterdir())
    done = predict_run(trained, file, options=PredictOptions(domain="clean"))
    assert done.folder == load_stored(trained).place / "predictions" / file.stem
    assert [line["image"] for line in lines_of(done.folder)] == [file.name]
    assert (done.images, done.domains, done.by) == (1, {"clean": 1}, {"told": 1})
    assert cv2.imread(str(done.folder / "classes.png")) is not None
    assert json.loads((done.folder / "prediction.json").read_text())["domain"] == "clean"


def test_unreadable_files_are_named_and_passed_over(trained, images, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    file = next((images / "clean").iterdir())
    (tmp_path / "in" / "whole.png").write_bytes(file.read_bytes())
    assert predict(trained, tmp_path / "in", tmp_path / "out") == 0
    broken, whole = lines_of(tmp_path / "out")
    assert "not a readable image" in broken["problem"]
    assert (broken["prediction"], whole["problem"]) == ("", "")
    said = capsys.readouterr()
    assert "2 images, 1 of them unreadable and skipped" in said.out
    assert "broken.png: unreadable: " in said.err


def test_images_of_which_none_is_readable_are_an_error(trained, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    assert predict(trained, tmp_path / "in", tmp_path / "out") == 1
    assert f"{tmp_path}/in: 1 file, none of them readable" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_earlier_prediction_of_the_same_images_is_replaced(trained, images, tmp_path):
    (tmp_path / "in").mkdir()
    first, second = sorted((images / "clean").iterdir())[:2]
    for kept, gone in ((first, second), (second, first)):
        (tmp_path / "in" / gone.name).unlink(missing_ok=True)
        (tmp_path / "in" / kept.name).write_bytes(kept.read_bytes())
        assert predict(trained, tmp_path / "in", tmp_path / "out") == 0
        assert [line["image"] for line in lines_of(tmp_path / "out")] == [kept.name]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "out"]


def test_predictions_among_the_images_are_none_of_them(trained, images, tmp_path):
    (tmp_path / "in").mkdir()
    file = next((images / "clean").iterdir())
    (tmp_path / "in" / file.name).write_bytes(file.read_bytes())
    for _ in range(2):
        assert predict(trained, tmp_path / "in", tmp_path / "in" / "out") == 0
        assert len(lines_of(tmp_path / "in" / "out")) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_interrupted_prediction_leaves_the_earlier_one(
    trained, images, tmp_path, error, code, capsys
):
    assert predict(trained, images, tmp_path / "out", "--domain", "clean") == 0
    before = (tmp_path / "out" / "predictions.csv").read_bytes()

    def interrupt(module, *_):
        if isinstance(module, DomainModel):
            raise error

    hook = register_module_forward_hook(interrupt)
    try:
        assert predict(trained, images, tmp_path / "out") == code
    finally:
        hook.remove()
    assert "interrupted; nothing was written, earlier predictions stay" in capsys.readouterr().err
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--domain", "claen"), "--domain: unknown domain 'claen': did you mean 'clean'? known: "),
        (("--unseen", "error"), "add --domain NAME, give a table with the columns image and dom"),
        (("--unseen", "mean", "--far", "mean"), "far: 'mean' is for images whose domain is estim"),
        (("--batch-size", "0"), "batch_size: got 0, expected 1 or more"),
        (("--white", "255"), "data.white: 255, expected 256 to 65535"),
    ],
)
def test_wrong_options_are_answered_with_a_way_out(
    trained, images, tmp_path, words, message, capsys
):
    assert predict(trained, images, tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_domain_beside_those_of_a_table_is_refused(trained, images, tmp_path, capsys):
    (images / "told.csv").write_text("image,domain\nclean/0.png,clean\n")
    assert predict(trained, images / "told.csv", tmp_path / "out", "--domain", "clean") == 1
    assert "told.csv also gives domains; leave out the option" in capsys.readouterr().err


def test_domains_of_a_model_without_encoder_have_to_be_told(finished, images, tmp_path, capsys):
    assert predict(finished, images, tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "is unknown, but this model has own norms for clean, colour_cast" in said
    assert "add --unseen, one of mean, nearest, batch (models trained with 'encoder: sty" in said
    assert predict(finished, images, tmp_path / "out", "--unseen", "mixture") == 1
    assert "unseen: 'mixture' needs a domain encoder" in capsys.readouterr().err


@pytest.mark.parametrize("policy", ["mean", "nearest"])
def test_unseen_images_get_what_the_model_makes_of_them(finished, images, policy, tmp_path):
    assert predict(finished, images / "clean", tmp_path / "out", "--unseen", policy) == 0
    model = load_stored(finished).model
    model.unseen = policy
    parts = Parts(recipe())
    numbers, probabilities = probabilities_of(lines_of(tmp_path / "out"))
    preprocessing = parts.preprocessing(model).whole()
    image = torch.stack([preprocessing(parts.dataset.image(number)) for number in numbers])
    with torch.no_grad():
        wanted = model(image).softmax(1)
    torch.testing.assert_close(probabilities, wanted, rtol=0, atol=5e-6)
    nearest = policy == "nearest"
    assert all(bool(line["domain"]) == nearest for line in lines_of(tmp_path / "out"))


def test_missing_folder_of_images_is_named(trained, tmp_path, capsys):
    assert predict(trained, tmp_path / "nowhere", tmp_path / "out") == 1
    assert f"{tmp_path}/nowhere: no such folder or list of files" in capsys.readouterr().err


def test_batches_of_nothing_are_refused():
    with pytest.raises(DomainNormError, match="batch_size: got 0, expected 1 or more"):
        PredictOptions(batch_size=0)


def test_files_of_twelve_bits_are_predicted_as_those_of_eight(trained, images, tmp_path):
    (tmp_path / "dark").mkdir()
    file = next((images / "clean").iterdir())
    dark = cv2.imread(str(file)).astype(np.uint16) * 16
    assert cv2.imwrite(str(tmp_path / "dark" / file.name), dark)
    assert predict(trained, tmp_path / "dark", tmp_path / "told", "--white", "4080") == 0
    assert predict(trained, file, tmp_path / "eight") == 0
    assert lines_of(tmp_path / "told") == lines_of(tmp_path / "eight")
