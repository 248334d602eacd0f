from __future__ import annotations

import pytest
import yaml

from domainnorm.cli.data_commands import ACTIONS
from domainnorm.data.dataset import resolved_root
from domainnorm.errors import DataError
from domainnorm.registry import DATASETS


@pytest.fixture
def folder(domainnorm, tmp_path):
    """A sample of class folders, below the working folder."""
    assert domainnorm("data", "sample", "folder", "things").returncode == 0
    return tmp_path / "things"


def words(text: str) -> str:
    """Text without the frames of tables and their line breaks."""
    return " ".join("".join(" " if sign in "│┃" else sign for sign in text).split())


def test_list_says_of_every_dataset_what_it_is_and_where_to_get_it(domainnorm):
    text = "".join(words(domainnorm("data", "list").stdout).split())
    for name in DATASETS.names():
        entry = DATASETS.entry(name)
        facts = (entry.constants[key] for key in ("layout", "homepage", "licence"))
        for fact in (name, entry.summary, *facts):
            assert "".join(fact.split()) in text, name


@pytest.mark.parametrize("task", ["classification", "segmentation", "multilabel"])
def test_list_of_a_task_names_its_datasets_and_those_of_any_task(domainnorm, task):
    lines = domainnorm("data", "list", task).stdout.splitlines()
    starts = {line.split()[1] for line in lines if line.startswith("│ ") and line[2] != " "}
    assert starts == {
        name for name in DATASETS.names() if DATASETS.entry(name).constants["task"] in (task, "")
    }


def test_list_gives_keys_with_their_defaults(domainnorm):
    text = words(domainnorm("data", "list", "multilabel").stdout)
    assert "root, table=manifest.csv, columns=null, domains=null, val_fraction=0.2" in text
    assert "white=65535, findings=null" in text


def test_sample_can_be_used_as_it_says(domainnorm, tmp_path):
    done = domainnorm("data", "sample", "pacs", "drawn", "seed=3")
    assert done.returncode == 0
    assert done.stdout == (
        "drawn: a sample of pacs, drawn; domains photo, art_painting, cartoon, sketch\n"
        f"data: {{name: pacs, root: {tmp_path / 'drawn'}}}\n"
    )
    assert domainnorm("data", "check", "pacs", str(tmp_path / "drawn")).returncode == 0


def test_folder_of_a_sample_loads_as_it_is(domainnorm, tmp_path):
    printed = domainnorm("data", "sample", "folder", "pets, wild").stdout.splitlines()[-1]
    assert yaml.safe_load(printed)["data"]["root"] == str(tmp_path / "pets, wild")


def test_sample_touches_no_folder_that_holds_something(domainnorm, folder):
    done = domainnorm("data", "sample", "pacs", "things")
    assert done.returncode == 1
    assert done.stderr == "domainnorm data: things: not empty; name a new folder\n"


def test_check_counts_images_and_classes(domainnorm, folder):
    done = domainnorm("data", "check", "folder", str(folder))
    text = words(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert "painting 20 8 8 36 0 64 × 64" in text
    assert "house 5 5" in text
    assert done.stdout.endswith(f"ok folder {folder}\n".replace("ok ", "ok  "))


def test_check_reports_all_problems_at_once(domainnorm, folder):
    (folder / "photo/car/00000.jpg").unlink()
    (folder / "photo/dog/00001.jpg").write_bytes(b"no image")
    table = folder / "splits.csv"
    torn = table.read_text().replace("photo/dog/00002.jpg,train", "photo/dog/00005.jpg,train")
    table.write_text(torn.replace("00003.jpg,train", "00003.jpg,trian", 1))
    done = domainnorm("data", "check", "folder", str(folder))
    text = words(done.stdout)
    assert done.returncode == 1
    assert done.stderr == f"4 problems folder {folder}\n".replace("problems ", "problems  ")
    assert "photo/car/00000.jpg No such file or directory" in text
    assert "photo/dog/00001.jpg not a readable image (8 bytes" in text
    assert "split 'trian', expected" in text
    assert "group 'photo/dog/00005.jpg' is in" in text


def test_check_takes_keys_of_the_dataset(domainnorm, folder):
    done = domainnorm("data", "check", "folder", str(folder), "domains=[photo]", "splits=''")
    assert done.returncode == 0
    assert "painting" not in done.stdout


def test_check_of_a_recipe_reads_its_dataset_and_domains(domainnorm, folder):
    root, domains = f"data.root={folder}", ("data.source=[photo]", "data.target=[painting]")
    done = domainnorm("data", "check", "pacs/photo_to_rest", root, *domains)
    assert (done.returncode, done.stderr) == (0, "")
    assert words(done.stdout).endswith(f"ok folder {folder}")


def test_check_of_data_that_is_not_there_says_where_it_should_be(domainnorm, tmp_path):
    done = domainnorm("data", "check", "folder", "nowhere")
    assert done.returncode == 1
    assert "'nowhere' resolves to" in words(done.stdout)


def test_check_pairs_masks_with_images(domainnorm, tmp_path):
    domainnorm("data", "sample", "folder_masks", "films")
    (tmp_path / "films/day/masks/000.png").unlink()
    (tmp_path / "films/day/masks/stray.png").write_bytes(b"")
    done = domainnorm("data", "check", "folder_masks", str(tmp_path / "films"))
    text = words(done.stdout)
    assert done.returncode == 0
    assert "day 12 (3) 8 (2) 8 (2) 27 1 128 × 96" in text
    assert "left out: 1 file (mask without an image), such as day/masks/stray.png" in text
    assert "bicyclist" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "driving"], "unknown task 'driving'"),
        (["list", "multilabel", "x"], "got multilabel x, expected [TASK]"),
        (["check"], "got nothing, expected DATASET [ROOT]"),
        (["check", "pcas", "x"], "unknown dataset or recipe 'pcas': did you mean 'pacs'?"),
        (
            ["check", "cityscape"],
            "unknown dataset or recipe 'cityscape': did you mean 'cityscapes'",
        ),
        (["check", "camvd"], "did you mean 'camvid'?"),
        (["check", "pcas.yaml"], "unknown recipe 'pcas'"),
        (["check", "pcas/photo"], "unknown recipe 'pcas/photo'"),
        (["check", "pacs"], "data.root: missing, expected a text"),
        (["check", "pacs", "x", "rot=1"], "data.rot: unknown key 'rot': did you mean 'root'?"),
        (["check", "pacs", "x", "test_fraction=a"], "data.test_fraction: got 'a', expected a num"),
        (["check", "pacs", "x", "domains=[a"], "data.domains: got '[a', which is no YAML value"),
        (["sample", "pacs"], "got pacs, expected DATASET FOLDER [seed=N]"),
        (["sample", "pacs", "x", "sed=1"], "got pacs x sed=1, expected DATASET FOLDER [seed=N]"),
        (["sample", "pasc", "x"], "unknown dataset 'pasc': did you mean 'pacs'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_answered_with_exit_code_2(domainnorm, arguments, message):
    done = domainnorm("data", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_dataset_without_files_has_no_sample(domainnorm):
    done = domainnorm("data", "sample", "scans", "x")
    assert (done.returncode, done.stderr.count("nothing to write")) == (1, 1)


def test_check_takes_a_folder_of_the_working_directory(domainnorm, tmp_path, monkeypatch):
    monkeypatch.setenv("DOMAINNORM_DATA", str(tmp_path / "elsewhere"))
    assert domainnorm("data", "sample", "folder", "pets").returncode == 0
    done = domainnorm("data", "check", "folder", "pets")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"ok  folder {tmp_path}/pets\n")


def test_root_that_lies_in_the_working_directory_is_pointed_out(domainnorm, tmp_path, monkeypatch):
    monkeypatch.setenv("DOMAINNORM_DATA", str(tmp_path / "elsewhere"))
    (tmp_path / "pets").mkdir()
    with pytest.raises(DataError, match=f"working directory is {tmp_path}/pets: write that"):
        resolved_root("pets")


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_a_help_of_its_own(domainnorm, action):
    done = domainnorm("data", action, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: domainnorm data {action} ")
    assert ("--max-domains" in done.stdout) == (action == "domains")
    first = ACTIONS[action].summary.split(". ")[0].rstrip(".")
    assert first in " ".join(done.stdout.split())


def test_help_of_the_command_lists_its_actions_without_their_options(domainnorm):
    done = domainnorm("data", "--help")
    assert done.returncode == 0
    assert all(f"domainnorm data {name} {one.form}" in done.stdout for name, one in ACTIONS.items())
    assert "--size" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chek"], "unknown action 'chek': did you mean 'check'?"),
        ([], "expected one of list, check, sample, domains as the first word"),
        (["--force", "domains"], "unknown option '--force'"),
        (["--", "domains"], "unknown option '--'"),
    ],
)
def test_first_word_is_an_action(domainnorm, arguments, message):
    done = domainnorm("data", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_equal_problems_are_one_row_with_their_number(domainnorm, tmp_path):
    domainnorm("data", "sample", "folder", "things")
    table = tmp_path / "things/splits.csv"
    head, first, *lines = table.read_text().splitlines()
    emptied = [line.rpartition(",")[0] + "," for line in lines]
    table.write_text("\n".join([head, first, *emptied]))
    done = domainnorm("data", "check", "folder", str(tmp_path / "things"))
    assert done.returncode == 1
    assert done.stdout.count("split ''") == 1
    assert f"… and {len(lines) - 3} more" in done.stdout
