"""The example that serves an exported file without torch."""

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from domainnorm.data import Preprocessing
from domainnorm.data.images import read_image

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "serve_onnx.py"))
NAMES = ["edema", "mass", "nodule"]


def about(task="classification", **image):
    known = {"height": 2, "width": 2, "mean": (0.5,) * 3, "std": (0.5,) * 3, "fit": "cover"}
    known |= {"interpolation": "bilinear", "crop": None, "white": 65535}
    made = {"task": task, "domain": "site_a", "class_names": NAMES, "preprocessing": known | image}
    return json.loads(json.dumps(made))


def network(description):
    """A file of a network whose logits are the mean colour: one pixel of its input."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["logits"]),
        ],
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"domainnorm": json.dumps(description)})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def session(description):
    return onnxruntime.InferenceSession(network(description), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("shape", [(20, 50), (31, 9), (32, 48), (200, 90), (3, 2)])
@pytest.mark.parametrize("fit", ["cover", "pad", "stretch"])
@pytest.mark.parametrize("mean", [(0.5, 0.4, 0.3), (0.4,)])
def test_images_are_prepared_as_in_training(shape, fit, mean):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    wanted = Preprocessing(32, 48, mean, (0.2,) * len(mean), "bicubic", fit)
    given = about(height=32, width=48, mean=mean, std=wanted.std, interpolation="bicubic", fit=fit)
    found = EXAMPLE["preprocess"](image, given["preprocessing"])
    np.testing.assert_array_equal(found, wanted(image))


@pytest.mark.parametrize("white", [65535, 4095])
def test_files_of_16_bits_are_read_as_in_training(tmp_path, white):
    pixels = np.random.default_rng(0).integers(0, 5000, (9, 7), dtype=np.uint16)
    assert cv2.imwrite(str(tmp_path / "deep.png"), pixels)
    found = EXAMPLE["read_image"](str(tmp_path / "deep.png"), white)
    np.testing.assert_array_equal(found, read_image(tmp_path / "deep.png", white))


def test_each_finding_has_a_probability_of_its_own():
    image = np.full((2, 2, 3), (255, 0, 255), np.uint8)
    found, names = EXAMPLE["classify"](session(about("multilabel")), [image], [""])
    likely = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(found, [[likely, 1 - likely, likely]], rtol=1e-6)
    assert names == NAMES


def test_probabilities_of_classes_sum_to_one():
    image = np.full((2, 2, 3), (255, 0, 255), np.uint8)
    found, _ = EXAMPLE["classify"](session(about()), [image], [""])
    weights = np.exp([1, -1, 1])
    np.testing.assert_allclose(found, [weights / weights.sum()], rtol=1e-6)


def test_every_finding_is_printed(tmp_path, monkeypatch, capsys):
    model, file = tmp_path / "model.onnx", tmp_path / "image.png"
    model.write_bytes(network(about("multilabel")))
    assert cv2.imwrite(str(file), np.full((2, 2, 3), 255, np.uint8))
    monkeypatch.setattr("sys.argv", ["serve_onnx.py", str(model), str(file)])
    EXAMPLE["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{file}\t{name}\t0.731059" for name in NAMES]


def test_masks_are_refused():
    with pytest.raises(SystemExit, match="serves classifiers, the file is for segmentation"):
        EXAMPLE["classify"](session(about("segmentation")), [np.zeros((2, 2, 3), np.uint8)], [""])
