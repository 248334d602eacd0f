"""Models as ONNX files and torch.export archives."""

import json
import sys

import onnx
import pytest
import torch
from torch import nn

from domainnorm import create_segmentation_model
from domainnorm.backbones import (
    convert_norms,
    export_onnx,
    export_program,
    fold_domain,
    largest_difference,
    load_onnx,
    load_program,
)
from domainnorm.errors import ConditionError, ExportError
from tests.backbones.networks import DOMAINS, converted

pytestmark = pytest.mark.slow

SIZE = (3, 64, 64)
NOTES = {"domainnorm": json.dumps({"domain_names": DOMAINS})}
FORMATS = {"onnx": (export_onnx, load_onnx), "pt2": (export_program, load_program)}
IMAGE = torch.randn(4, *SIZE)
LABELS = torch.tensor([2, 0, 1, 1])


def exported(model, folder, kind="onnx"):
    """The path of an exported model, and the program in it."""
    export, load = FORMATS[kind]
    path = folder / f"model.{kind}"
    export(model, SIZE, path, NOTES)
    return path, load(path)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    torch.manual_seed(0)
    model = converted().eval()
    folder = tmp_path_factory.mktemp("served")
    return model, {kind: exported(model, folder, kind) for kind in FORMATS}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_program_takes_any_batch_and_any_labels(served, kind, number):
    model, programs = served
    image, labels = IMAGE[:number], LABELS[:number]
    found = programs[kind][1](image, labels)
    torch.testing.assert_close(found, model(image, labels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("label", [-1, -3, 3, 100])
def test_program_refuses_labels_out_of_range(served, kind, label):
    _, programs = served
    with pytest.raises(Exception, match=r"out of (data bounds|range)"):
        programs[kind][1](IMAGE, torch.tensor([0, label, 1, 2]))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("test_efficientnet", "cbn"),
        ("test_resnet", {"all": "cin"}),
        ("test_resnet", "cluster_in"),
        ("test_resnet", {"name": "cluster_in", "assignment": "soft"}),
        pytest.param("resnet10t", "cin", marks=pytest.mark.slow),
        pytest.param("test_byobnet", "dsbn", marks=pytest.mark.slow),
        pytest.param("levit_128s", "dsbn", marks=pytest.mark.slow),
        pytest.param("test_vit", None, marks=pytest.mark.slow),
        pytest.param("test_convnext", None, marks=pytest.mark.slow),
    ],
    ids=str,
)
# LeViT's cache of attention biases, a dict that it fills in evaluation, is a constant to a tracer.
@pytest.mark.filterwarnings("ignore:The tensor attribute.*attention_bias_cache:UserWarning")
def test_program_computes_what_the_model_does(tmp_path, name, norm, kind):
    size = (3, *[{"levit_128s": 224, "test_vit": 160}.get(name, 64)] * 2)
    model = converted(name, norm, size=size[1]).eval()
    export, load = FORMATS[kind]
    path = tmp_path / f"model.{kind}"
    export(model, size, path, NOTES)
    assert largest_difference(load(path), model, size, 3) < 1e-5


@pytest.mark.parametrize("kind", FORMATS)
def test_folded_domain_needs_no_label(tmp_path, kind):
    model = converted().eval()
    _, program = exported(fold_domain(model, "b"), tmp_path, kind)
    torch.testing.assert_close(program(IMAGE), model(IMAGE, "b"), rtol=1e-4, atol=1e-5)


def test_notes_are_in_the_metadata_of_an_onnx_file(served):
    model = onnx.load(served[1]["onnx"][0])
    assert NOTES.items() <= {item.key: item.value for item in model.metadata_props}.items()


def test_notes_are_in_the_archive(served):
    files = dict.fromkeys(NOTES, "")
    torch.export.load(served[1]["pt2"][0], extra_files=files)
    assert files == NOTES


def test_another_network_is_found_to_differ(served):
    model, programs = served
    torch.manual_seed(1)
    other = converted().eval()
    assert largest_difference(programs["onnx"][1], model, SIZE, 3) < 1e-5
    assert largest_difference(programs["onnx"][1], other, SIZE, 3) > 1e-2


def test_one_domain_of_several_that_is_wrong_is_found(served):
    model, programs = served

    def swapped(image, labels):
        return programs["onnx"][1](image, torch.where(labels == 2, 1, labels))

    assert largest_difference(swapped, model, SIZE, 3) > 1e-3


def test_values_that_are_not_finite_differ_infinitely(served):
    model, _ = served
    broken = lambda image, labels: model(image, labels) * torch.nan  # noqa: E731
    assert largest_difference(broken, model, SIZE, 3) == torch.inf


def test_missing_package_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    message = r"needs the package onnxscript, .*pip install 'domainnorm\[export\]'"
    with pytest.raises(ExportError, match=message):
        export_onnx(converted().eval(), SIZE, tmp_path / "model.onnx", {})


class ReadsValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(x) if x.sum().item() > 0 else x


@pytest.mark.parametrize("kind", FORMATS)
def test_network_that_depends_on_values_is_refused_with_its_class(tmp_path, kind):
    model = convert_norms(ReadsValues(), "dsbn", DOMAINS).eval()
    with pytest.raises(ExportError, match=r"ReadsValues cannot be exported to \S+: "):
        exported(model, tmp_path, kind)
    assert list(tmp_path.iterdir()) == []


def test_norms_that_need_more_than_the_domain_are_refused(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model = convert_norms(network, {"all": "spade"}, DOMAINS).eval()
    with pytest.raises(ConditionError, match="spatial modulation needs a map"):
        exported(model, tmp_path)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("side", [64, 96])
def test_masks_of_plain_transformers_are_exported(tmp_path, kind, side):
    """Position embeddings are those of the size, or resampled to it."""
    torch.manual_seed(0)
    options = {"decoder": "pyramid", "width": 16, "img_size": side}
    model = create_segmentation_model("test_vit", 3, "cln", DOMAINS, **options).eval()
    program = exported(model, tmp_path, kind)[1]
    assert largest_difference(program, model, SIZE, len(DOMAINS)) < 1e-4
