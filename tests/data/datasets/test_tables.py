from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from domainnorm.data.datasets import Manifest, ManifestFindings, ManifestMasks
from domainnorm.errors import DataError

Lines = Sequence[dict[str, object]]


@pytest.fixture
def lines(tmp_path: Path) -> list[dict[str, object]]:
    """Ten images of each of two domains, with a class and metadata each."""
    found = []
    for domain in ("day", "night"):
        for number in range(10):
            file = f"files/{domain}{number}.png"
            (tmp_path / "files").mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / file), np.full((8, 8, 3), number, np.uint8))
            found.append(
                {
                    "path": file,
                    "target": ("cat", "dog")[number % 2],
                    "domain": domain,
                    "split": "test" if number < 2 else "train",
                    "group": f"{domain}{number}",
                    "age": number,
                }
            )
    return found


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Lines], Path]:
    def table(lines: Lines) -> Path:
        with (tmp_path / "manifest.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        return tmp_path

    return table


def without(lines: Lines, *columns: str) -> list[dict[str, object]]:
    return [{key: line[key] for key in line if key not in columns} for line in lines]


def test_target_is_the_class(write, lines):
    dataset = Manifest(root=str(write(lines)))
    assert dataset.class_names == ["cat", "dog"]
    named = {record.file: dataset.class_names[record.target] for record in dataset.records}
    assert named == {line["path"]: line["target"] for line in lines}


def test_further_columns_are_metadata(write, lines):
    records = Manifest(root=str(write(lines))).records
    assert {r.file: r.metadata for r in records}["files/night3.png"] == {"age": "3"}


def test_parquet_is_read_as_csv_is(write, lines, tmp_path):
    write(lines)
    parquet.write_table(pa.Table.from_pylist(list(lines)), tmp_path / "m.parquet")
    first, other = (
        Manifest(root=str(tmp_path), table=name) for name in ("manifest.csv", "m.parquet")
    )
    assert first.records == other.records
    assert [r.metadata for r in first.records] == [r.metadata for r in other.records]


def test_number_that_is_none_is_missing_in_parquet(lines, tmp_path):
    columns = {name: [line[name] for line in lines] for name in ("path", "domain")}
    columns["target"] = [number % 2 if number else float("nan") for number in range(len(lines))]
    columns["age"] = [float("nan")] * len(lines)
    parquet.write_table(pa.table(columns), tmp_path / "m.parquet")
    dataset = Manifest(root=str(tmp_path), table="m.parquet")
    assert dataset.class_names == ["0", "1"]
    assert [r.file for r in dataset.records if not r.is_labelled] == [lines[0]["path"]]
    assert {r.metadata["age"] for r in dataset.records} == {""}


def test_tabs_may_part_the_columns(write, lines, tmp_path):
    text = (write(lines) / "manifest.csv").read_text()
    (tmp_path / "m.tsv").write_text(text.replace(",", "\t"))
    assert len(Manifest(root=str(tmp_path), table="m.tsv").records) == 20


def test_columns_may_have_other_names(write, lines):
    renamed = [
        {{"target": "diagnosis", "domain": "site"}.get(key, key): line[key] for key in line}
        for line in lines
    ]
    columns = {"target": "diagnosis", "domain": "site"}
    dataset = Manifest(root=str(write(renamed)), columns=columns)
    assert (dataset.class_names, dataset.domain_names) == (["cat", "dog"], ["day", "night"])


def test_splits_are_drawn_without_their_column(write, lines):
    records = Manifest(root=str(write(without(lines, "split")))).records
    assert {(r.domain, r.split) for r in records} == {
        (domain, split) for domain in ("day", "night") for split in ("train", "val", "test")
    }


def test_test_rows_stay_and_validation_is_drawn(write, lines):
    records = Manifest(root=str(write(lines))).records
    tested = {record.file for record in records if record.split == "test"}
    assert tested == {line["path"] for line in lines if line["split"] == "test"}
    assert sum(record.split == "val" for record in records) == 4


def test_group_may_be_absent(write, lines):
    records = Manifest(root=str(write(without(lines, "group")))).records
    assert all(record.group == record.file for record in records)


def test_other_names_of_the_validation_split_are_known(write, lines):
    lines[4]["split"], lines[5]["split"] = "validation", "valid"
    records = Manifest(root=str(write(lines))).records
    assert {r.file for r in records if r.split == "val"} == {lines[4]["path"], lines[5]["path"]}


def test_empty_target_is_no_label(write, lines):
    lines[3]["target"] = ""
    records = Manifest(root=str(write(lines))).records
    assert [r.file for r in records if not r.is_labelled] == [lines[3]["path"]]


def test_no_target_at_all_is_for_tasks_that_read_none(write, lines):
    root = str(write(without(lines, "target")))
    with pytest.raises(DataError, match="no image of day, night has a target"):
        Manifest(root=root)
    dataset = Manifest(root=root, allow_missing_classes=True)
    assert dataset.class_names == []
    assert len(dataset.records) == len(lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "trian"}, r"row 4: split 'trian', .*; did you mean 'train'"),
        ({"path": ""}, r"row 4: path '' and domain 'day'; neither may be empty"),
        ({"path": "files/day0.png"}, r"'files/day0\.png' is listed more than once"),
        ({"path": "./files//day0.png"}, r"'files/day0\.png' is listed more than once"),
        ({"path": "files/x.png"}, r"'files/x\.png' is listed but"),
        ({"group": "day0"}, r"group 'day0' is in split"),
    ],
)
def test_wrong_row_is_named(write, lines, change, message):
    lines[3] |= change
    with pytest.raises(DataError, match=rf"manifest\.csv.*{message}"):
        Manifest(root=str(write(lines)))


def test_missing_column_is_named_with_the_nearest(write, lines):
    renamed = [{{"domain": "domian"}.get(key, key): line[key] for key in line} for line in lines]
    with pytest.raises(DataError, match=r"unknown column 'domain': did you mean 'domian'.*columns"):
        Manifest(root=str(write(renamed)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"table": "other.csv"}, r"data\.table: .*other\.csv does not exist"),
        ({"table": "other.xlsx"}, r"data\.table: 'other\.xlsx', expected a name that ends with"),
        ({"columns": {"targte": "x"}}, r"data\.columns: unknown column 'targte': did you mean 'ta"),
        ({"columns": {"group": "patient"}}, r"unknown column 'patient'"),
    ],
)
def test_wrong_key_is_named(write, lines, keys, message):
    with pytest.raises(DataError, match=message):
        Manifest(root=str(write(lines)), **keys)


def test_damaged_parquet_is_named(tmp_path):
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match=r"m\.parquet: not a readable Parquet table"):
        Manifest(root=str(tmp_path), table="m.parquet")


def test_target_may_be_a_mask(write, lines, tmp_path):
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    for line in lines:
        line["target"] = line["path"].replace(".png", "_mask.png")
        cv2.imwrite(str(tmp_path / line["target"]), np.full((8, 8), line["age"] % 2, np.uint8))
    lines[0]["target"] = ""
    dataset = ManifestMasks(root=str(write(lines)))
    assert [r.file for r in dataset.records if r.mask is None] == [lines[0]["path"]]
    seen = {r.file: int(dataset.mask(i)[0, 0]) for i, r in enumerate(dataset.records) if r.mask}
    assert seen == {line["path"]: line["age"] % 2 for line in lines[1:]}


def test_splits_of_masks_are_drawn_from_domains(write, lines, tmp_path):
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    for line in lines:
        line["target"] = line["path"].replace(".png", "_mask.png")
        cv2.imwrite(str(tmp_path / line["target"]), np.zeros((8, 8), np.uint8))
    for wanted in (without(lines, "split"), lines):  # drawn both, validation alone
        records = ManifestMasks(root=str(write(wanted))).records
        assert {(r.domain, r.split) for r in records} == {
            (domain, split) for domain in ("day", "night") for split in ("train", "val", "test")
        }


def test_missing_mask_is_named(write, lines, tmp_path):
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    lines[0]["target"] = "x.png"
    with pytest.raises(DataError, match=r"'x\.png' is listed but"):
        ManifestMasks(root=str(write([lines[0], *without(lines[1:], "target")])))


def findings(lines: Lines) -> list[dict[str, object]]:
    values = ("1", "0", "", "-1", "1.0")
    return [{**line, "edema": values[at % 5], "nodule": at % 2} for at, line in enumerate(lines)]


def test_findings_are_present_absent_or_unknown(write, lines):
    dataset = ManifestFindings(root=str(write(findings(lines))), findings=["nodule", "edema"])
    labels = {record.file: record.labels for record in dataset.records}
    assert [labels[line["path"]] for line in lines[:5]] == [
        (0, 1),
        (1, 0),
        (0, -1),
        (1, -1),
        (0, 1),
    ]


def test_findings_are_found_by_what_they_hold(write, lines):
    assert ManifestFindings(root=str(write(findings(lines)))).class_names == ["edema", "nodule"]


def test_value_that_is_no_finding_is_named(write, lines):
    with pytest.raises(DataError, match=r"files/day2\.png: age is '2', expected 1, 0, -1"):
        ManifestFindings(root=str(write(lines)), findings=["age"])


def test_unknown_finding_is_named(write, lines):
    with pytest.raises(DataError, match=r"data\.findings: unknown column 'edma': did you mean"):
        ManifestFindings(root=str(write(findings(lines))), findings=["edma"])


def test_table_without_findings_says_which_columns_there_are(write, lines):
    with pytest.raises(DataError, match=r"no findings; name their columns .* of age"):
        ManifestFindings(root=str(write(lines)))
