from __future__ import annotations

import pytest

from domainnorm.data.table import Row, read_table
from domainnorm.errors import DataError

HEAD = "file,domain,class,group,split\n"


def test_empty_group_means_the_file(tmp_path):
    table = tmp_path / "splits.csv"
    table.write_text(HEAD + "a/x/1.png,a,x,,test\n")
    assert read_table(table) == [Row("a/x/1.png", "a", "x", "a/x/1.png", "test")]


def test_byte_order_mark_is_ignored(tmp_path):
    table = tmp_path / "splits.csv"
    table.write_bytes(b"\xef\xbb\xbf" + (HEAD + "1.png,a,x,g,val\n").encode())
    assert read_table(table)[0].file == "1.png"


def test_rows_are_sorted_by_file(tmp_path):
    table = tmp_path / "splits.csv"
    table.write_text(HEAD + "2,a,x,,train\n1,a,x,,train\n")
    assert [row.file for row in read_table(table)] == ["1", "2"]


def test_spelling_of_a_path_decides_nothing(tmp_path):
    table = tmp_path / "splits.csv"
    table.write_text(HEAD + "./a//1.png,a,x,,test\n")
    assert read_table(table) == [Row("a/1.png", "a", "x", "a/1.png", "test")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column file, domain, class, group, split missing.*got nothing"),
        ("file,domain,class,group\n1,a,x,g\n", "column split missing"),
        (HEAD, "no rows"),
        (HEAD + "1,a,x,g,trian\n", r"line 2: split 'trian', .* did you mean 'train'\?"),
        (HEAD + "1,a,x,g,\n", "line 2: split '', expected train, val or test"),
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
    with pytest.raises(DataError, match=r"splits\.csv: cannot be read as a UTF-8 table"):
        read_table(table)
