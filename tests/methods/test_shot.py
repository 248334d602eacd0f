import copy

import pytest
import torch
from torch.testing import assert_close

from domainnorm.errors import DomainNormError
from domainnorm.losses import confusion_loss, entropies, entropy_loss
from domainnorm.methods.shot import nearest_centroid
from domainnorm.tasks import create_segmentation_model
from domainnorm.tasks.segmentation import Segmentation
from tests.methods.bench import METHODS, ONE, changed, fit, rows_changed, scans, source_model
from tests.reference.adaptation import centroid_labels, class_confusion


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_those_of_the_nearest_centroid(seed):
    torch.manual_seed(seed)
    features, logits = torch.randn(30, 4), 3 * torch.randn(30, 5)
    logits[:, 4] -= 20  # a class that is never predicted has no centroid
    found = nearest_centroid(features, logits.softmax(1)).tolist()
    assert found == centroid_labels(features.tolist(), logits.tolist())
    assert 4 not in found


def test_classifier_and_rows_of_the_source_stay():
    done = fit("shot", source_model(), ONE, epochs=2)
    names = changed(done.before, done.model)
    assert not {name for name in names if name.startswith("backbone.fc")}
    rows = {name for name in names if "modulation" in name or "statistics" in name}
    assert rows_changed(done.before, done.model, rows) == {ONE.all.index("colour_cast")}


def test_every_target_image_has_a_label_and_no_other():
    method = fit("shot", source_model(), ONE).method
    labelled = {int(index) for index in (method.label.values >= 0).nonzero()}
    assert labelled == {
        position
        for position, record in enumerate(scans().records)
        if (record.domain, record.split) == ("colour_cast", "train")
    }


def test_loss_is_entropy_less_diversity_plus_cross_entropy():
    class Watched(METHODS.load("shot")):
        checked = 0

        def losses(self, batch):
            logits = copy.deepcopy(self.model)(batch["image"], batch["domain"])
            losses = super().losses(batch)
            mean = logits.softmax(1).mean(0)
            wanted = entropy_loss(logits) - entropies(mean.log()[None])[0]
            assert_close(losses["infomax"], wanted)
            label = self.label.read(batch["index"])
            picked = logits.log_softmax(1)[torch.arange(len(label)), label]
            assert_close(losses["label"], -0.3 * picked.mean())
            type(self).checked += 1
            return losses

    fit(Watched, source_model(), ONE)
    assert Watched.checked > 0


def test_masks_are_refused():
    model = create_segmentation_model("test_resnet", 3, "dsbn", ONE.all, width=16)
    with pytest.raises(DomainNormError, match="one class per image"):
        METHODS.load("shot")(model, Segmentation(["a", "b", "c"]), ONE)


@pytest.mark.parametrize("num_classes", [2, 7])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_confusion_is_that_of_the_paper(num_classes, temperature):
    logits = 3 * torch.randn(9, num_classes, dtype=torch.float64)
    expected = class_confusion(logits.tolist(), temperature)
    assert float(confusion_loss(logits, temperature)) == pytest.approx(expected, rel=1e-12)


def test_confusion_of_pixels_is_that_of_samples():
    logits = torch.randn(2, 4, 3, 5)
    rows = logits.permute(0, 2, 3, 1).reshape(-1, 4)
    assert_close(confusion_loss(logits), confusion_loss(rows))


def test_sure_and_balanced_predictions_confuse_nothing():
    assert float(confusion_loss(100 * torch.eye(4))) == pytest.approx(0, abs=1e-6)
    assert float(confusion_loss(torch.zeros(3, 4))) == pytest.approx(0.75)


def test_weights_of_the_confusion_take_no_gradient():
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    confusion_loss(logits).backward()
    scaled = (logits.detach() / 2.5).requires_grad_()
    p = scaled.softmax(1)
    weight = 1 + torch.exp(-entropies(scaled.detach()))
    matrix = torch.einsum("n,ni,nj->ij", weight, p, p)
    (1 - (matrix / matrix.sum(1, keepdim=True)).diagonal().mean()).backward()
    assert_close(logits.grad, scaled.grad / 2.5)


def test_temperature_is_above_zero():
    with pytest.raises(DomainNormError, match="temperature 0"):
        confusion_loss(torch.zeros(2, 3), 0)
