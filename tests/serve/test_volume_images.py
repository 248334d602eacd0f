"""Slices of volumes that are predicted, and masks on the grid of their volume."""

import nibabel
import numpy as np
import pytest

from domainnorm.data.datasets import Nifti
from domainnorm.data.volumes.grey_values import percentile_range, to_grey
from domainnorm.errors import DataError
from domainnorm.serve.image_sources import VolumeImages

SHAPE = (20, 14, 6)


def save(file, codes="RAS", zooms=(2.0, 2.0, 5.0)):
    """A volume of noise, the same in canonical orientation, written in another one."""
    values = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    volume = nibabel.Nifti1Image(values, np.diag([*zooms, 1.0]))
    turned = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(volume.as_reoriented(turned), file)
    return file


def bright(volume):
    """Which voxels are shown brighter than the middle, in the volume's own orientation."""
    values = np.asarray(volume.dataobj, dtype=np.float32)
    return to_grey(values, *percentile_range(values)) > 127


def predict_bright(images, made):
    """The masks of a model that says 1 where pixels are bright."""
    for number in range(len(images.listed)):
        pixels = images.pixels(number)
        images.write_mask(made, number, (pixels[..., 0] > 127).astype(np.uint8))
    images.finish(made)


@pytest.mark.parametrize("axis", ["sagittal", "coronal", "axial"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSL", "ILA"])
def test_a_mask_lies_on_the_voxels_of_its_volume(codes, axis, tmp_path):
    file = save(tmp_path / "in/case.nii.gz", codes)
    images = VolumeImages(tmp_path / "in", tmp_path / "out", {"axis": axis})
    predict_bright(images, tmp_path / "out")
    volume, mask = (nibabel.load(one) for one in (file, tmp_path / "out/masks/case.nii.gz"))
    assert np.array_equal(np.asarray(mask.dataobj), bright(volume).astype(np.uint8))
    assert np.allclose(mask.affine, volume.affine)
    assert mask.get_data_dtype() == np.uint8


def test_slices_are_those_that_the_dataset_trains_on(tmp_path):
    Nifti.write_sample(tmp_path, domains=("HK",))
    dataset = Nifti(root=str(tmp_path), spacing=2.0)
    images = VolumeImages(tmp_path, tmp_path / "out", {"spacing": 2.0})
    positions = {record.file: number for number, record in enumerate(dataset.records)}
    assert {str(name) for name, _ in images.listed.files} == set(positions)
    for number, (name, _) in enumerate(images.listed.files):
        assert np.array_equal(images.pixels(number), dataset.image(positions[str(name)]))


def test_a_mask_of_resampled_slices_comes_back_to_the_voxels(tmp_path):
    file = save(tmp_path / "in/case.nii", zooms=(2.0, 3.0, 5.0))
    images = VolumeImages(tmp_path / "in", tmp_path / "out", {"spacing": 1.0})
    assert images.pixels(0).shape == (42, 40, 3)
    predict_bright(images, tmp_path / "out")
    mask = nibabel.load(tmp_path / "out/masks/case.nii.gz")
    assert mask.shape == SHAPE
    # Between voxels pixels are interpolated: those near the threshold may differ.
    assert (np.asarray(mask.dataobj) == bright(nibabel.load(file))).mean() > 0.9


def test_a_fourth_axis_of_length_one_is_no_hindrance(tmp_path):
    file = save(tmp_path / "in/case.nii.gz", "LPS")
    volume = nibabel.load(file)
    wanted, values = bright(volume), np.asarray(volume.dataobj)[..., None]
    nibabel.save(nibabel.Nifti1Image(values, volume.affine), file)
    images = VolumeImages(tmp_path / "in", tmp_path / "out", {})
    predict_bright(images, tmp_path / "out")
    mask = nibabel.load(tmp_path / "out/masks/case.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), wanted.astype(np.uint8))


def test_each_volume_has_a_mask_of_its_own_and_segmentations_are_left_out(tmp_path):
    for name in ("b/one.nii", "a/one.nii.gz", "a/one_Segmentation.nii.gz", ".hidden.nii"):
        save(tmp_path / "in" / name)
    images = VolumeImages(tmp_path / "in", tmp_path / "in/out", {})
    predict_bright(images, tmp_path / "in/out")
    written = sorted((tmp_path / "in/out").rglob("*.nii.gz"))
    names = [str(file.relative_to(tmp_path / "in/out")) for file in written]
    assert names == ["masks/a/one.nii.gz", "masks/b/one.nii.gz"]
    again = VolumeImages(tmp_path / "in", tmp_path / "in/out", {})
    assert again.listed.files == images.listed.files  # its own masks are no volumes


def test_a_table_says_of_each_slice_what_it_says_of_the_volume(tmp_path):
    for name in ("one", "two"):
        save(tmp_path / f"{name}.nii.gz")
    (tmp_path / "list.csv").write_text("image,domain,site\none.nii.gz,HK,3\ntwo.nii.gz,,4\n")
    listed = VolumeImages(tmp_path / "list.csv", tmp_path / "out", {}).listed
    assert listed.domains == ["HK"] * 6 + [""] * 6
    assert listed.columns == {"site": ["3"] * 6 + ["4"] * 6}


def test_volumes_that_cannot_be_read_are_told_with_their_file(tmp_path):
    (tmp_path / "one.nii.gz").write_bytes(b"nothing")
    whole = save(tmp_path / "two.nii.gz").read_bytes()
    (tmp_path / "two.nii.gz").write_bytes(whole[:1500])
    images = VolumeImages(tmp_path, tmp_path / "out", {})
    assert "one.nii.gz: not a readable NIfTI file" in images.problems[0]
    for number in (1, 2):
        with pytest.raises(DataError, match=r"two\.nii\.gz: not a readable NIfTI file"):
            images.pixels(number)


def test_folder_without_volumes_and_two_with_one_mask_are_refused(tmp_path):
    with pytest.raises(DataError, match="no volumes in it"):
        VolumeImages(tmp_path, tmp_path / "out", {})
    for name in ("one.nii", "one.nii.gz"):
        save(tmp_path / name)
    with pytest.raises(DataError, match="one of the images"):
        VolumeImages(tmp_path, tmp_path / "out", {}).check_masks()
