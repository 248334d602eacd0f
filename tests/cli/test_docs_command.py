import pytest

from domainnorm.cli.reference import made_pages
from domainnorm.recipe import list_pages


def test_every_page_is_listed_with_its_title(domainnorm):
    done = domainnorm("docs")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [*list_pages(), *made_pages()]
    assert "methods/tent" in list_pages()
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)


@pytest.mark.parametrize("name", ["docs/methods/tent.md", "methods/tent", "tent"])
def test_a_page_is_found_as_messages_name_it_and_shorter(domainnorm, name):
    done = domainnorm("docs", name)
    assert done.stdout == list_pages()["methods/tent"].read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["masks", "masks-folder_masks"])
def test_a_page_begins_at_the_heading_that_is_named(domainnorm, place):
    done = domainnorm("docs", f"docs/data.md#{place}")
    assert "### Masks: `folder_masks`" in done.stdout.splitlines()[:2]


@pytest.mark.parametrize(
    ("name", "said"),
    [("tentt", "did you mean 'methods/tent'?"), ("data#mask", "did you mean 'masks'?")],
)
def test_unknown_pages_and_headings_get_the_nearest(domainnorm, name, said):
    done = domainnorm("docs", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
