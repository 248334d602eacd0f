from __future__ import annotations

import nibabel
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from domainnorm.data import survey_dataset
from domainnorm.data.datasets import Nifti
from domainnorm.errors import DataError
from tests.data.datasets.drawn import read, where, write

AFFINE = np.diag([1.0, 2.0, 4.0, 1.0])


@pytest.fixture
def case(tmp_path):
    """Writes one case of one site: values, segmentation, affine."""

    def make(values, organ, affine=AFFINE, name="Case00_Segmentation", of_organ=None):
        site = tmp_path / "HK"
        site.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, affine), site / "Case00.nii.gz")
        nibabel.save(
            nibabel.Nifti1Image(organ, affine if of_organ is None else of_organ),
            site / f"{name}.nii.gz",
        )
        return tmp_path

    return make


@pytest.fixture
def ramp():
    """Values that grow from left to right, back to front, and with the slice."""
    x, y, z = np.meshgrid(np.arange(6), np.arange(5), np.arange(4), indexing="ij")
    return (x + 10 * y + 100 * z).astype(np.int16)


@pytest.fixture
def organ():
    mask = np.zeros((6, 5, 4), np.uint8)
    mask[1:3, 3:, 1:3] = 2
    return mask


def test_every_slice_of_a_case_is_in_one_split(tmp_path):
    dataset = read("nifti", tmp_path)
    pairs = {(record.group, record.split) for record in dataset.records}
    assert len(pairs) == len({record.group for record in dataset.records}) == 36


def test_segmentation_without_a_volume_is_told(tmp_path):
    write("nifti", tmp_path)
    (tmp_path / "HK/Case00.nii.gz").unlink()
    assert list(Nifti(root=str(tmp_path)).left_out) == [
        "left out: 1 file (segmentation without a volume), such as HK/Case00_segmentation.nii.gz"
    ]


def test_axial_slice_has_left_to_the_left_and_front_up(case, ramp, organ):
    dataset = Nifti(root=str(case(ramp, organ)), window=[176, 352])
    grey = dataset.image(0)[..., 0].astype(int)
    assert grey.shape == (5, 6)
    assert (np.diff(grey, axis=1) >= 0).all()
    assert grey[0, 0] > grey[-1, 0]


def test_orientation_of_the_file_does_not_matter(case, ramp, organ):
    root = case(ramp, organ)
    expected = Nifti(root=str(root)).image(2)
    turned = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    turned[0, 3] = 5.0
    case(ramp[::-1].copy(), organ[::-1].copy(), turned)
    np.testing.assert_array_equal(Nifti(root=str(root)).image(2), expected)


@pytest.mark.parametrize(
    ("axis", "count", "shape"),
    [("axial", 4, (5, 6)), ("coronal", 5, (4, 6)), ("sagittal", 6, (4, 5))],
)
def test_axis_is_the_direction_across_the_slices(case, ramp, organ, axis, count, shape):
    dataset = Nifti(root=str(case(ramp, organ)), axis=axis)
    assert len(dataset.records) == count
    assert dataset.mask(0).shape == shape


def test_spacing_is_that_of_the_slice_after_resampling(case, ramp, organ):
    dataset = Nifti(root=str(case(ramp, organ)), axis="coronal", spacing=0.5)
    # Rows lie 4 mm apart, columns 1 mm.
    assert dataset.image(0).shape == (32, 12, 3)
    assert dataset.mask(0).shape == (32, 12)


def test_spacing_of_the_volume_is_metadata(case, ramp, organ):
    record = Nifti(root=str(case(ramp, organ))).records[0]
    assert record.metadata["spacing"] == "1 × 2 × 4"


def test_image_and_mask_show_the_same_place(tmp_path):
    dataset = read("nifti", tmp_path, domains=["HK"])
    index = where(dataset, file="HK/Case00.nii.gz#4")[0]
    grey, classes = dataset.image(index)[..., 0].astype(float), dataset.mask(index)
    around = np.abs(np.indices(classes.shape) - 32).max(0) < 16
    assert grey[classes == 1].mean() > grey[(classes == 0) & around].mean() + 20


def test_values_above_0_are_one_class_by_default(case, ramp, organ):
    assert set(np.unique(Nifti(root=str(case(ramp, organ))).mask(1))) == {0, 1}


def test_named_values_are_classes(case, ramp, organ):
    dataset = Nifti(root=str(case(ramp, organ)), classes=["background", "rim", "core"])
    assert set(np.unique(dataset.mask(1))) == {0, 2}


def test_value_without_a_name_is_refused(case, ramp, organ):
    dataset = Nifti(root=str(case(ramp, organ)), classes=["background", "organ"])
    with pytest.raises(DataError, match=r"Segmentation\.nii\.gz: values 2, expected 0 to 1"):
        dataset.mask(0)


def test_slices_without_organ_can_be_left_out(case, ramp, organ):
    dataset = Nifti(root=str(case(ramp, organ)), slices="labelled")
    assert [record.metadata["slice"] for record in dataset.records] == ["1", "2"]


def test_second_slice_of_a_volume_reads_no_file(tmp_path):
    dataset = read("nifti", tmp_path, domains=["BIDMC"])
    dataset.image(0)
    (tmp_path / "BIDMC/Case00.nii.gz").unlink()
    assert dataset.image(1).shape == (64, 64, 3)


class Images(Dataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.dataset.image(index)


def test_worker_processes_read_the_same(tmp_path):
    dataset = read("nifti", tmp_path, domains=["BIDMC"])
    dataset.image(0)
    batches = list(DataLoader(Images(dataset), batch_size=6, num_workers=2))
    for index, pixels in enumerate(np.concatenate([batch.numpy() for batch in batches])):
        np.testing.assert_array_equal(pixels, dataset.image(index))


def test_volume_without_segmentation_is_refused(tmp_path):
    write("nifti", tmp_path)
    (tmp_path / "HK/Case03_segmentation.nii.gz").unlink()
    with pytest.raises(DataError, match=r"Case03\.nii\.gz: no segmentation Case03_segmentation"):
        Nifti(root=str(tmp_path))


def test_segmentation_of_another_shape_is_refused(case, ramp, organ):
    root = case(ramp, organ[..., :3])
    with pytest.raises(DataError, match=r"shape \(6, 5, 3\), but Case00\.nii\.gz has \(6, 5, 4\)"):
        Nifti(root=str(root))


LAS = np.diag([-1.0, 2.0, 4.0, 1.0])


@pytest.mark.parametrize("of_organ", [np.eye(4), LAS + 0.5 * np.eye(4, k=3)])
def test_segmentation_with_another_affine_is_refused(case, ramp, organ, of_organ):
    root = case(ramp, organ, LAS, of_organ=of_organ)
    with pytest.raises(
        DataError,
        match=r"Segmentation\.nii\.gz: its affine puts .* mm away .*Case00\.nii\.gz; .* save",
    ):
        Nifti(root=str(root))


def test_segmentation_with_another_affine_is_a_problem_of_a_survey(case, ramp, organ):
    root = case(ramp, organ, LAS, of_organ=np.eye(4))
    (problem,) = survey_dataset(lambda: Nifti(root=str(root))).problems
    assert problem.file == str(root / "HK/Case00_Segmentation.nii.gz")


def test_orientation_of_a_segmentation_does_not_matter(case, ramp, organ):
    root = case(ramp, organ)
    expected = Nifti(root=str(root)).mask(1)
    turned = LAS.copy()
    turned[0, 3] = 5.0
    case(ramp, organ[::-1].copy(), of_organ=turned)
    np.testing.assert_array_equal(Nifti(root=str(root)).mask(1), expected)


def test_affines_may_differ_by_rounding(case, ramp, organ):
    dataset = Nifti(root=str(case(ramp, organ, of_organ=AFFINE * (1 + 1e-4))))
    assert len(dataset.records) == 4


def test_truncated_volume_is_named(tmp_path):
    write("nifti", tmp_path)
    file = tmp_path / "HK/Case00.nii.gz"
    file.write_bytes(file.read_bytes()[:4000])
    dataset = Nifti(root=str(tmp_path), domains=["HK"])
    with pytest.raises(DataError, match=r"Case00\.nii\.gz: not a readable NIfTI file"):
        dataset.image(where(dataset, file="HK/Case00.nii.gz#0")[0])


@pytest.mark.parametrize("slices", ["all", "labelled"])
def test_truncated_segmentation_is_a_problem_of_a_survey(tmp_path, slices):
    write("nifti", tmp_path)
    file = tmp_path / "HK/Case00_segmentation.nii.gz"
    file.write_bytes(file.read_bytes()[:200])
    (problem,) = survey_dataset(lambda: Nifti(root=str(tmp_path), slices=slices)).problems
    assert problem.file.endswith("HK/Case00_segmentation.nii.gz")
    assert problem.text.startswith("not a readable NIfTI file")


def test_spacing_below_0_is_refused(tmp_path):
    write("nifti", tmp_path)
    with pytest.raises(DataError, match=r"data\.spacing: -1\.0, expected millimetres"):
        Nifti(root=str(tmp_path), spacing=-1.0)
