import csv

import cv2
import numpy as np
import pytest

from domainnorm.data import discover_domains, open_pile
from domainnorm.data.datasets import FolderMasks, Manifest, ManifestMasks
from domainnorm.data.inspection.discovery import reduced_to
from domainnorm.data.table import read_lines
from domainnorm.errors import DataError
from tests.encoders.slides import slides

COUNT = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two stains in folders of classes; nothing tells the stains."""
    root = tmp_path_factory.mktemp("pile")
    for kind in (0, 2):
        for number, image in enumerate(slides(kind, COUNT, 32)):
            file = root / f"class_{number % 2}" / f"{kind}{number:03d}.png"
            file.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(file), image[..., ::-1])
    return root


@pytest.fixture(scope="module")
def discovery(folder):
    return discover_domains(open_pile(str(folder), classes=True))


def stain(path):
    return path.rpartition("/")[2][0]


def write_table(folder, name, **columns):
    """A table of the images with further columns, each a function of the number of the line."""
    lines = [
        {"path": row.file, **{key: value(at, row.file) for key, value in columns.items()}}
        for at, row in enumerate(open_pile(str(folder)).rows)
    ]
    with (folder / name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return str(folder / name)


def test_two_stains_are_found_in_all_splits(discovery):
    pairs = {(stain(path), domain) for path, domain in discovery_pairs(discovery)}
    assert len(pairs) == 2
    assert set(discovery.domain_names) == {"style_1", "style_2"}
    assert set(discovery.splits) == {"train", "val", "test"}


def discovery_pairs(discovery):
    return zip(discovery.column("path"), discovery.domains, strict=True)


def test_manifest_reads_what_is_written(discovery, folder, tmp_path):
    discovery.write(tmp_path / "found.csv")
    dataset = Manifest(root=str(folder), table=str(tmp_path / "found.csv"))
    assert dataset.domain_names == ["style_1", "style_2"]
    assert dataset.class_names == ["class_0", "class_1"]
    found = {(record.file, record.domain, record.split) for record in dataset.records}
    assert found == set(
        zip(discovery.column("path"), discovery.domains, discovery.splits, strict=True)
    )


def test_images_of_other_splits_do_not_shape_the_domains(folder):
    named = {"split": lambda at, file: "train" if stain(file) == "0" else "test"}
    table = write_table(folder, "torn.csv", **named)
    assert discover_domains(open_pile(table)).domain_names == ["style_1"]


def test_given_domains_are_compared_and_never_used(folder, discovery):
    by_stain = {"domain": lambda _, file: stain(file), "split": lambda *_: "train"}
    wrong = {**by_stain, "domain": lambda at, _: str(at % 3)}
    right, other = (
        discover_domains(open_pile(write_table(folder, "given.csv", **columns)))
        for columns in (by_stain, wrong)
    )
    assert right.domains == other.domains
    assert right.agreement("domain") == 1
    assert abs(other.agreement("domain")) < 0.1


def test_agreement_is_with_groups_of_images_only(discovery):
    assert discovery.agreement("domain") is None
    assert discovery.agreement("path") is None
    assert abs(discovery.agreement("target")) < 0.1


def test_drawn_splits_ignore_given_domains(folder):
    first = write_table(folder, "first.csv", domain=lambda at, _: str(at % 2))
    second = write_table(folder, "second.csv", domain=lambda at, _: str(at % 5))
    splits = [[row.split for row in open_pile(table).rows] for table in (first, second)]
    assert splits[0] == splits[1]
    assert set(splits[0]) == {"train", "val", "test"}


def test_columns_are_kept_and_the_domain_is_replaced(folder, tmp_path):
    columns = {
        "hour": lambda at, _: str(at),
        "domain": lambda *_: "x",
        "target": lambda at, _: str(at % 2),
        "split": lambda at, _: "test" if at % 4 == 0 else "validation" if at % 4 == 1 else "train",
    }
    table = write_table(folder, "wide.csv", **columns)
    discover_domains(open_pile(table)).write(tmp_path / "found.csv")
    before, after = (read_lines(file) for file in (folder / "wide.csv", tmp_path / "found.csv"))
    assert list(after[0]) == ["path", "hour", "domain", "target", "split"]
    assert {line["domain"] for line in after} == {"style_1", "style_2"}
    rest = [[{**line, "domain": ""} for line in lines] for lines in (before, after)]
    assert sorted(map(str, rest[0])) == sorted(map(str, rest[1]))


def test_paths_of_a_table_are_written_as_they_are(folder, tmp_path):
    table = write_table(folder, "dots.csv", path=lambda _, file: f"./{file}")
    discover_domains(open_pile(table)).write(tmp_path / "found.csv")
    assert all(line["path"].startswith("./") for line in read_lines(tmp_path / "found.csv"))


def test_columns_may_be_called_otherwise(folder, tmp_path):
    table = write_table(folder, "named.csv", scanner=lambda *_: "x", patient=lambda at, _: str(at))
    names = {"domain": "scanner", "group": "patient"}
    pile = open_pile(table, columns=names)
    discover_domains(pile).write(tmp_path / "found.csv")
    assert list(read_lines(tmp_path / "found.csv")[0]) == ["path", "scanner", "patient", "split"]


def test_manifest_of_masks_stays_one(tmp_path):
    ManifestMasks.write_sample(tmp_path)
    discovery = discover_domains(open_pile(str(tmp_path / "manifest.csv")), size=48)
    discovery.write(tmp_path / "found.csv")
    dataset = ManifestMasks(root=str(tmp_path), table="found.csv")
    assert dataset.domain_names == discovery.domain_names
    assert all(record.mask for record in dataset.records)


def test_masks_beside_images_are_their_targets(tmp_path):
    FolderMasks.write_sample(tmp_path)
    pile = open_pile(str(tmp_path))
    assert len(pile.rows) == len(FolderMasks(root=str(tmp_path)).records)
    for row, target in zip(pile.rows, pile.column("target"), strict=True):
        assert target == row.file.replace("/images/", "/masks/")
        assert (tmp_path / target).is_file()
    assert {row.split for row in pile.rows} == {"train", "val", "test"}


def test_broken_images_are_named_and_left_out(folder, tmp_path):
    for file in sorted(folder.rglob("*.png"))[:30]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "thin.png"), np.zeros((1, 9, 3), np.uint8))
    discovery = discover_domains(open_pile(str(tmp_path)))
    assert len(discovery.places) == 30
    assert [text.partition(",")[0] for text in discovery.problems] == [
        f"{tmp_path}/broken.png: not a readable image (8 bytes; truncated",
        f"{tmp_path}/thin.png: 9 × 1 pixels",
    ]
    discovery.write(tmp_path / "found.csv")
    assert "broken" not in (tmp_path / "found.csv").read_text()


def test_typical_images_are_of_the_training_split(discovery):
    chosen = discovery.typical(0, 1000)
    count = sum(
        (domain, split) == ("style_1", "train")
        for domain, split in zip(discovery.domains, discovery.splits, strict=True)
    )
    assert len(chosen) == count
    assert chosen[0].shape == (32, 32, 3)


def test_every_reading_is_reported(folder):
    seen = []

    def progress(readings, count):
        seen.append(count)
        return readings

    discover_domains(open_pile(str(folder)), 1, progress=progress)
    assert seen == [2 * COUNT]


def test_hidden_files_are_no_images(tmp_path):
    (tmp_path / ".git").mkdir()
    for name in (".git/a.png", ".b.png", "c.png", "d.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [row.file for row in open_pile(str(tmp_path)).rows] == ["c.png"]


@pytest.mark.parametrize(("size", "shape"), [(20, (20, 40)), (50, (30, 60))])
def test_images_are_reduced_and_never_enlarged(size, shape):
    assert reduced_to(np.zeros((30, 60, 3), np.uint8), size).shape[:2] == shape


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda root: None, {}, r"nowhere: neither .*/nowhere nor .*/nowhere exists; name a fol"),
        (lambda root: root.mkdir(), {}, "nowhere: no images; expected files with one of the suff"),
        (
            lambda root: (root.mkdir(), (root / "a.png").touch()),
            {"classes": True},
            "--classes: .*/nowhere/a.png lies in no folder of a class; expected <class>/<image>",
        ),
        (
            lambda root: root.mkdir(),
            {"columns": {"path": "x"}},
            "columns: .*/nowhere is a folder, which has none; leave the key out",
        ),
        (
            lambda root: root.write_text("path\na.png\n"),
            {"classes": True},
            "--classes: .*nowhere is a table, whose column target holds the classes",
        ),
        (lambda root: root.write_text("x"), {}, "data.table: 'nowhere', expected a name that ends"),
    ],
)
def test_what_is_no_pile_is_refused(tmp_path, monkeypatch, make, options, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "nowhere")
    with pytest.raises(DataError, match=message):
        open_pile("nowhere", **options)


def test_a_table_without_paths_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("file,target\na.png,1\n")
    with pytest.raises(DataError, match=r"table\.csv: unknown column 'path'.*data\.columns"):
        open_pile(str(tmp_path / "table.csv"))


def test_a_pile_without_readable_training_images_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("path,split\na.png,train\nb.png,test\n")
    message = "none of 2 images is readable and in split train, but .*, such as .*a.png: No suc"
    with pytest.raises(DataError, match=message):
        discover_domains(open_pile(str(tmp_path / "table.csv")))
