from __future__ import annotations

import pytest

from domainnorm.data.datasets import OfficeHome
from domainnorm.errors import DataError


@pytest.fixture
def root(tmp_path):
    OfficeHome.write_sample(tmp_path)
    return tmp_path


def test_folders_name_domains_and_classes(root):
    dataset = OfficeHome(root=str(root))
    assert dataset.domain_names == ["Art", "Clipart", "Product", "Real World"]
    assert all(dataset.class_names[r.target] == r.file.split("/")[1] for r in dataset.records)


def test_other_files_of_the_archive_are_no_domains(root):
    (root / "ImageInfo.csv").write_text("x")
    (root / "Extra").mkdir()
    assert len(OfficeHome(root=str(root)).domain_names) == 4


def test_missing_domain_is_named(root):
    (root / "Real World").rename(root / "RealWorld")
    with pytest.raises(DataError, match="Real World: no images; expected <domain>/<class>/<image>"):
        OfficeHome(root=str(root))


def test_missing_class_of_a_domain_is_named(root):
    for file in (root / "Art/Bed").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="domain 'Art' has no training image of class 'Bed'"):
        OfficeHome(root=str(root))


def test_link_to_a_file_that_is_missing_is_named(root):
    (root / "Art/Bed/99.jpg").symlink_to(root / "gone.jpg")
    with pytest.raises(DataError, match=r"Art/Bed/99\.jpg: a link to a file that does not exist"):
        OfficeHome(root=str(root))
