from __future__ import annotations

import pytest

from domainnorm.data.datasets import Dicom
from domainnorm.data.delimited import read_delimited
from domainnorm.data.manifest import read_lines
from domainnorm.data.problems import collecting
from domainnorm.data.table import read_table
from domainnorm.errors import DataError
from tests.data.datasets.drawn import write


@pytest.fixture
def table(tmp_path):
    def make(text, name="m.csv"):
        file = tmp_path / name
        file.write_text(text)
        return file

    return make


def test_lines_have_their_numbers_in_the_file(table):
    file = table('a,b\n\n1,"2\n3"\n4,5\n')
    assert read_delimited(file) == (
        ["a", "b"],
        [(4, {"a": "1", "b": "2\n3"}), (5, {"a": "4", "b": "5"})],
    )


def test_comma_in_quotes_parts_no_cells(table):
    assert read_delimited(table('a,b\n"1,2",3\n'))[1] == [(2, {"a": "1,2", "b": "3"})]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "a,b\n1,2\n1,2,3\n", r"line 3: 3 cells, the header has 2; quote a cell .* comma"),
        ("m.csv", "a,b\n1,2,\n", r"line 2: 3 cells, the header has 2; quote a cell .* comma"),
        ("m.tsv", "a\tb\n1\t2\t3\n", r"line 2: 3 cells, the header has 2; quote a cell .* tab"),
        ("m.csv", "a,b\n1\n", r"line 2: 1 cell, the header has 2; write a comma for each empty"),
        ("m.csv", "a,b,a\n1,2,3\n", r"m\.csv: column 'a' is there twice; rename one"),
    ],
)
def test_uneven_manifest_names_the_line(table, name, text, message):
    with pytest.raises(DataError, match=message):
        read_lines(table(text, name))


def test_columns_without_a_name_may_be_several(table):
    assert read_lines(table("a,,\n1,,\n")) == [{"a": "1", "": ""}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,domain,class,group,split\nx, y.png,a,c,g,train\n", "line 2: 6 cells"),
        ("split,file,domain,class,group\ntrain,x.png,a\n", "line 2: 3 cells"),
        ("file,domain,class,group,split,class\nx.png,a,c,g,train,d\n", "column 'class' .* twice"),
    ],
)
def test_uneven_table_of_splits_is_refused(table, text, message):
    with pytest.raises(DataError, match=message):
        read_table(table(text))


def test_uneven_labels_of_dicom_files_are_refused(tmp_path):
    write("dicom", tmp_path)
    (tmp_path / "labels.csv").write_text("PatientID,class\npatient_01,healthy,old\n")
    with pytest.raises(DataError, match=r"labels\.csv, line 2: 3 cells"):
        Dicom(root=str(tmp_path))


def test_all_uneven_lines_are_collected(table):
    file = table("a,b\n1\n1,2\n1,2,3\n")
    with collecting() as problems, pytest.raises(DataError, match="line 4"):
        read_delimited(file)
    assert [problem.partition(":")[0] for problem in problems] == [f"{file}, line 2"]
