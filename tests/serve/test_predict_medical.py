"""DICOM images and NIfTI volumes predicted by runs of such data, through the console command."""

import csv

import nibabel
import numpy as np
import pytest
import torch

from domainnorm.data.datasets import Dicom, Nifti
from domainnorm.evaluation import load_evaluated
from tests.run.tiny import call

SKYRA, SIGNA = "siemens_skyra", "ge_medical_systems_signa_hdxt"
DICOM = f"""
task: classification
encoder: style
data:
  {{name: dicom, root: ROOT, image_size: 32, batch_size: 16, source: [{SKYRA}], target: [{SIGNA}]}}
"""
NIFTI = """
task: {name: segmentation, decoder: unet, width: 8}
data: {name: nifti, root: ROOT, image_size: 32, batch_size: 16, source: [BIDMC], target: [HK]}
"""
REST = """
backbone: {name: test_resnet, pretrained: false}
norm: dsbn
method: joint
compare: []
trainer: {max_epochs: 1, threads: 1}
evaluation: {resamples: 20}
seed: 0
"""


def trained(root, text, dataset):
    dataset.write_sample(root / "data")
    recipe = root / "tiny.yaml"
    recipe.write_text(text.replace("ROOT", str(root / "data")) + REST, encoding="utf-8")
    assert call("run", str(recipe), "--output", str(root / "out")) == 0
    return next((root / "out/tiny").iterdir())


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("dicom"), DICOM, Dicom)


@pytest.fixture(scope="module")
def nifti(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("nifti"), NIFTI, Nifti)


def data_of(run_folder):
    return run_folder.parents[2] / "data"


def lines_of(folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {line["image"]: line for line in csv.DictReader(file)}


def stored_of(run_folder, domain):
    """Index in the dataset -> probabilities, as the run has stored them of its test images."""
    stage = next(run_folder.glob("stages/*/seed0/joint"))
    stored = load_evaluated(stage / f"predictions-{domain}.safetensors")
    return dict(zip(stored.index.tolist(), stored.probabilities, strict=True))


@pytest.mark.slow
def test_images_of_scanners_are_predicted_as_in_the_tests_of_the_run(dicom, tmp_path):
    root = data_of(dicom)
    assert call("predict", str(dicom), str(root), "--output", str(tmp_path / "out")) == 0
    lines, dataset = lines_of(tmp_path / "out"), Dicom(root=str(root), domains=[SKYRA, SIGNA])
    assert len(lines) == len(dataset.records)
    for domain in (SKYRA, SIGNA):
        for index, wanted in stored_of(dicom, domain).items():
            line = lines[dataset.records[index].file]
            assert (line["domain"], line["domain_by"]) == (domain, "told")
            found = [float(line[f"probability_{name}"]) for name in dataset.class_names]
            torch.testing.assert_close(torch.tensor(found), wanted.float(), atol=2e-6, rtol=0)
    assert (tmp_path / "out/classes.png").exists()


def test_domain_that_is_asked_for_is_that_of_all_scanners(dicom, tmp_path):
    words = ("--output", str(tmp_path / "out"), "--domain", SIGNA)
    assert call("predict", str(dicom), str(data_of(dicom)), *words) == 0
    assert {line["domain"] for line in lines_of(tmp_path / "out").values()} == {SIGNA}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--white", "4095"), "white: it is for 16-bit image files, but the run's dataset 'dicom'"),
        (("--domain", "skyra"), "--domain: unknown domain 'skyra'"),
    ],
)
def test_what_does_not_fit_is_refused(words, message, dicom, tmp_path, capsys):
    place = str(data_of(dicom))
    assert call("predict", str(dicom), place, "--output", str(tmp_path / "out"), *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_streams_are_of_dicom_images_too(dicom, tmp_path, capsys):
    place = data_of(dicom)
    words = ("adapt", str(dicom), "--output", str(tmp_path / "out"), "--stream")
    assert call(*words, str(place)) == 0
    with (tmp_path / "out/log.csv").open(newline="", encoding="utf-8") as file:
        lines = {line["image"]: line for line in csv.DictReader(file)}
    assert set(lines) == {record.file for record in Dicom(root=str(place)).records}
    assert all(line["prediction"] and line["domain"] for line in lines.values())


@pytest.mark.slow
def test_streams_of_volumes_are_refused(nifti, tmp_path, capsys):
    place = data_of(nifti) / "BIDMC"
    assert call("adapt", str(nifti), "--stream", str(place), "--output", str(tmp_path / "out")) == 1
    assert "`domainnorm predict` writes their masks" in capsys.readouterr().err


def test_volumes_get_masks_on_their_grid(nifti, tmp_path, capsys):
    place = data_of(nifti) / "BIDMC"
    (tmp_path / "in").mkdir()
    for name in ("Case00", "Case01"):
        for end in (".nii.gz", "_segmentation.nii.gz"):
            (tmp_path / f"in/{name}{end}").write_bytes((place / f"{name}{end}").read_bytes())
    (tmp_path / "in/broken.nii.gz").write_bytes((place / "Case02.nii.gz").read_bytes()[:3000])
    words = ("--output", str(tmp_path / "out"), "--domain", "BIDMC")
    assert call("predict", str(nifti), str(tmp_path / "in"), *words) == 0
    assert capsys.readouterr().err.count("broken.nii.gz: not a readable NIfTI file") == 1
    lines = lines_of(tmp_path / "out")
    assert len(lines) == 24
    assert sum(bool(line["problem"]) for line in lines.values()) == 8
    for name in ("Case00", "Case01"):
        mask = nibabel.load(tmp_path / f"out/masks/{name}.nii.gz")
        volume = nibabel.load(tmp_path / f"in/{name}.nii.gz")
        assert np.allclose(mask.affine, volume.affine)
        classes = np.asarray(mask.dataobj)
        assert classes.shape == volume.shape
        for position in range(classes.shape[2]):
            line = lines[f"{name}.nii.gz#{position}"]
            assert line["prediction"] == f"masks/{name}.nii.gz"
            share = (classes[..., position] == 1).mean()
            assert float(line["share_foreground"]) == pytest.approx(share, abs=1e-6)
    assert not (tmp_path / "out/masks/broken.nii.gz").exists()
    assert (tmp_path / "out/overlays.png").exists()
