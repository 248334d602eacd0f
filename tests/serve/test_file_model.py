"""What outputs say."""

import pytest
import torch

from domainnorm.serve import load_stored
from domainnorm.serve.stored import FileModel
from domainnorm.tasks.multilabel import MultiLabel


@pytest.fixture
def files(finished):
    return FileModel(load_stored(finished))


def test_most_probable_class_is_said(files):
    output = torch.zeros(10)
    output[3] = 2
    said = files.said(output)
    assert said.classes == ("3",)
    assert said.confidence == pytest.approx(float(output.softmax(0)[3]))
    assert said.shares == pytest.approx(output.softmax(0).tolist())


def test_findings_above_one_half_are_said(files):
    files.task = MultiLabel(["a", "b", "c"])
    said = files.said(torch.tensor([1.0, -1.0, 3.0]))
    assert said.classes == ("a", "c")
    assert said.confidence == pytest.approx(float(torch.tensor([1.0, 1.0, 3.0]).sigmoid().mean()))
