from __future__ import annotations

import pytest

from domainnorm.data.datasets import Dicom
from domainnorm.data.refusals import collecting
from domainnorm.data.table import Row, read_delimited, read_lines, read_table
from domainnorm.errors import DataError
from tests.data.datasets.drawn import write

HEAD = "file,domain,class,group,split\n"


def test_empty_group_means_the_file(tmp_path):
    table = tmp_path / "splits.csv"
    table.write_text(HEAD + "a/x/1.png,a,x,,test\n")
    assert read_table(table) == ([Row("a/x/1.png", "a", "x", "a/x/1.png", "test")], True)


@pytest.mark.parametrize("text", ["file,domain\n1,a\n", HEAD + "1,a,,,\n"])
def test_without_splits_all_are_for_training(tmp_path, text):
    table = tmp_path / "splits.csv"
    table.write_text(text)
    assert read_table(table) == ([Row("1", "a", "", "1", "train")], False)


def test_byte_order_mark_is_ignored(tmp_path):
    table = tmp_path / "splits.csv"
    table.write_bytes(b"\xef\xbb\xbf" + (HEAD + "1.png,a,x,g,val\n").encode())
    assert read_table(table).rows[0].file == "1.png"


def test_rows_are_sorted_by_file(tmp_path):
    table = tmp_path / "splits.csv"
    table.write_text(HEAD + "2,a,x,,train\n1,a,x,,train\n")
    assert [row.file for row in read_table(table).rows] == ["1", "2"]


def test_spelling_of_a_path_decides_nothing(tmp_path):
    table = tmp_path / "splits.csv"
    table.write_text(HEAD + "./a//1.png,a,x,,test\n")
    assert read_table(table).rows == [Row("a/1.png", "a", "x", "a/1.png", "test")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column file, domain missing.*got nothing"),
        ("file,class\n1,x\n", "column domain missing"),
        ("file,domain,class,spilt\n1,a,x,test\n", "column 'spilt' is not read, .* 'split'"),
        ("file,domain,Class\n1,a,x\n", "column 'Class' is not read, .* 'class'"),
        ("file,domain,label\n1,a,x\n", "column 'label' is not read, .* 'class'"),
        ("file,domain,class,PatientID\n1,a,x,p\n", "column 'PatientID' is not read, .* 'group'"),
        ("file,domain,class,Subject ID\n1,a,x,p\n", "column 'Subject ID' is not read"),
        ("file,domain,class,Set\n1,a,x,test\n", "column 'Set' is not read, .* 'split'"),
        ("file,domain,class,patient\n1,a,x,p\n", "column 'patient' is not read, .* 'group'"),
        (HEAD.replace(",", ";"), "separated by semicolons; save it with commas"),
        (HEAD, "no rows"),
        (HEAD + "1,a,x,g,trian\n", r"line 2: split 'trian', .* did you mean 'train'\?"),
        (HEAD + "1,a,x,g,\n2,a,x,g,test\n", "line 2: split '', .*; other rows have a split"),
        (HEAD + ",a,x,g,train\n", "line 2: file '' and domain 'a'; neither may be empty"),
        (HEAD + "1,a,x,g,train\n1,a,x,g,train\n", "'1' is listed more than once"),
        (HEAD + "a/b/1,a,x,,train\n./a//b/1,a,x,,test\n", "'a/b/1' is listed more than once"),
        (HEAD + "a/b/1,a,x,,train\na/c/../b/1,a,x,,test\n", "'a/b/1' is listed more than once"),
    ],
)
def test_wrong_table_names_the_place(tmp_path, text, message):
    table = tmp_path / "splits.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=f"(?s)splits.csv.*{message}"):
        read_table(table)


def test_table_that_is_no_text_is_refused(tmp_path):
    table = tmp_path / "splits.csv"
    table.write_bytes(HEAD.encode() + b"\xff\xfe,a,x,g,train\n")
    with pytest.raises(DataError, match=r"splits\.csv: not a readable UTF-8 table"):
        read_table(table)


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


def test_a_quote_that_is_never_closed_is_refused(table):
    with pytest.raises(DataError, match="unexpected end of data"):
        read_lines(table('path,hour\n1.png,"8\n2.png,9\n'))
