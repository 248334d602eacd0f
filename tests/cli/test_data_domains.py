from __future__ import annotations

import os
from types import SimpleNamespace

import cv2
import pytest
import yaml

from domainnorm.cli.data_commands import _of_one_class
from domainnorm.data.table import read_lines
from tests.cli.test_data import words
from tests.encoders.slides import slides


@pytest.fixture
def folder(tmp_path):
    """Images of two stains in folders of classes, one of them broken."""
    for kind in (0, 2):
        for number, image in enumerate(slides(kind, 24, 32)):
            file = tmp_path / "pile" / f"class_{number % 2}" / f"{kind}{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), image[..., ::-1])
    (tmp_path / "pile/class_0/broken.jpg").write_bytes(b"no image")
    return tmp_path / "pile"


@pytest.fixture
def command(domainnorm):
    return lambda *arguments: domainnorm("data", "domains", *arguments)


def test_folder_becomes_a_manifest_that_the_toolkit_reads(command, domainnorm, folder, tmp_path):
    done = command("pile", "--classes", "--output", "out/found.csv")
    text = words(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert "style_1 1" in text
    assert "1 image left out" in text
    assert f"{folder}/class_0/broken.jpg: not a readable image" in text
    assert done.stdout.endswith(
        "out/found.csv: written; look at out/found.png first\n"
        f"data: {{name: manifest, root: {folder}, table: {tmp_path}/out/found.csv, "
        "source: [style_1, style_2]}\n"
    )
    assert cv2.imread(str(tmp_path / "out/found.png")).shape[1] > 1000
    checked = domainnorm(
        "data", "check", "manifest", str(folder), f"table={tmp_path}/out/found.csv"
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "style_2" in checked.stdout


def test_name_that_is_not_utf8_is_refused_before_images_are_read(command, folder):
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no image")
    done = command("pile")
    assert done.returncode == 1
    assert "caf\\xe9.png: the name is not UTF-8, as tables and logs need it" in done.stderr


def test_recipe_takes_the_data_as_printed(command, domainnorm, folder, tmp_path):
    printed = command("pile", "--classes").stdout.splitlines()[-1]
    assert printed.startswith("data: {")
    (tmp_path / "own.yaml").write_text(
        "configs: [trainer/cpu]\ntask: classification\nbackbone: {name: test_resnet}\nnorm: dsbn\n"
        f"{printed}\nmethod: joint\n"
    )
    done = domainnorm("check", "own.yaml")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["Käfer  und " + "Würmer " * 20 + "!", "# a: {b}, 'c'"])
def test_printed_data_loads_as_it_is(command, folder, tmp_path, name):
    folder.rename(tmp_path / name)
    done = command(name, "--classes", "--domains", "1", "--output", f"{name}/found.csv")
    printed = done.stdout.splitlines()[-1]
    assert yaml.safe_load(printed)["data"]["root"] == str(tmp_path / name)
    assert "\\x" not in printed  # letters stay readable


def test_given_domains_are_printed_beside_what_was_found(command, folder, tmp_path):
    command("pile", "--classes")
    lines = [line.split(",") for line in (tmp_path / "manifest.csv").read_text().splitlines()]
    given = [[*line[:2], line[0].rpartition("/")[2][0], *line[3:]] for line in lines[1:]]
    (folder / "given.csv").write_text("\n".join(map(",".join, [lines[0], *given])))
    done = command("pile/given.csv", "--output", "again.csv")
    text = words(done.stdout)
    assert "domains given (rows) and found" in text
    assert "adjusted Rand index with the column domain: 1.00; 1 is the same partition" in text
    assert {line["domain"] for line in read_lines(tmp_path / "again.csv")} == {"style_1", "style_2"}


def test_one_domain_is_an_answer(command, folder):
    for file in folder.glob("*/2*"):
        file.unlink()
    done = command("pile", "--output", "one.csv")
    assert done.returncode == 0
    assert "one domain: the best split of the images has stability 0." in done.stdout
    assert "There is nothing to condition on" in done.stdout
    assert "no image has a class; fill the column target" in done.stdout


def test_domains_that_follow_the_classes_are_told(command, folder, tmp_path):
    for file in list(folder.glob("*/*.png")):
        file.rename(folder / f"class_{file.name[0] == '2':d}" / f"{file.parent.name}{file.name}")
    done = command("pile", "--classes")
    assert "index with the column target: 1.00; 0 is chance, so these domains depend" in done.stdout
    assert "of 2 classes without training images: style_1 1, style_2 1\n" in done.stdout
    assert done.stdout.endswith("allow_missing_classes: true, source: [style_1, style_2]}\n")
    assert done.stderr == ""


def test_table_that_runs_refuse_for_another_reason_is_told_so(command, folder, tmp_path):
    command("pile", "--classes")
    lines = (tmp_path / "manifest.csv").read_text().replace(",class_1,", ",,").splitlines()
    lines[1] = lines[1].replace(",class_0,", ",class_2,").replace(",train,", ",test,")
    (folder / "given.csv").write_text("\n".join(lines))
    done = command("pile/given.csv", "--output", "again.csv")
    assert "a run will refuse it: " in done.stderr
    assert "class_2" in done.stderr


def test_existing_output_is_kept_unless_forced(command, folder, tmp_path):
    (tmp_path / "manifest.csv").write_text("mine")
    done = command("pile")
    assert done.returncode == 1
    message = f"domainnorm data: {tmp_path}/manifest.csv exists; use --force to overwrite it\n"
    assert done.stderr == message
    assert (tmp_path / "manifest.csv").read_text() == "mine"
    assert command("pile", "--force", "--domains", "1").returncode == 0
    assert (tmp_path / "manifest.csv").read_text() != "mine"


def test_existing_sheet_is_kept_and_is_no_image(command, folder):
    assert command("pile", "--domains", "1", "--output", "pile/m.csv").returncode == 0
    (folder / "m.csv").unlink()
    done = command("pile", "--output", "pile/m.csv")
    assert done.stderr == f"domainnorm data: {folder}/m.png exists; use --force to overwrite it\n"
    done = command("pile", "--domains", "1", "--output", "pile/m.csv", "--force")
    assert "m.png" not in (folder / "m.csv").read_text()


def test_sheets_of_earlier_calls_are_no_images(command, folder):
    assert command("pile", "--domains", "1", "--output", "pile/first.csv").returncode == 0
    assert command("pile", "--domains", "1", "--output", "pile/sub/second.csv").returncode == 0
    first, second = (read_lines(folder / name) for name in ("first.csv", "sub/second.csv"))
    assert [line["path"] for line in second] == [line["path"] for line in first]


def test_a_number_of_domains_that_cannot_be_told_apart_is_an_error(command, folder, tmp_path):
    done = command("pile", "--domains", "9")
    assert done.returncode == 1
    assert "find_domains: 9 domains asked for" in done.stderr
    assert not (tmp_path / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "got nothing, expected SOURCE [columns={path: ...}]"),
        (["a", "b"], 2, "got a b, expected SOURCE"),
        (["a", "rows=3"], 2, "got a rows=3, expected SOURCE"),
        (["a", "columns=x"], 2, "columns: got 'x', expected names of columns"),
        (["a", "columns={x"], 2, "columns: got '{x', expected names of columns"),
        (["a", "--domains", "many"], 2, "got 'many', expected a positive whole number"),
        (["a", "--size", "0"], 2, "got '0', expected a positive whole number"),
        (["a", "--seed", "-1"], 2, "expected"),
        (["a", "--output", "x.parquet"], 1, "--output: 'x.parquet', expected a name that ends wi"),
        (["a.csv", "--output", "a.csv", "--force"], 1, "a.csv is the table that is read; name an"),
        (["nowhere"], 1, "nowhere: neither "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_answered(command, arguments, code, message):
    done = command(*arguments)
    assert done.returncode == code
    assert message in done.stderr


def test_other_actions_refuse_its_options(domainnorm):
    done = domainnorm("data", "check", "pacs", "--size", "3", "--force")
    assert done.returncode == 2
    assert "unknown option '--size': did you mean '--help'?" in done.stderr


def test_domains_of_one_class_among_others_are_told():
    def fake(domains, targets):
        return SimpleNamespace(domains=domains, column=lambda name: targets)

    assert _of_one_class(fake(["a"] * 10 + ["b"] * 10, ["1"] * 10 + ["1", "2"] * 5)) == ["a (1)"]
    assert _of_one_class(fake(["a"] * 10 + ["b"] * 10, ["1"] * 10 + ["2"] * 10)) == []
    assert _of_one_class(fake(["a"] * 10 + ["b"] * 10, ["1"] * 9 + ["2"] + ["1", "2"] * 5)) == []
    assert _of_one_class(fake(["a"] * 10, [""] * 10)) == []
