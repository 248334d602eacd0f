import copy

import pytest
import torch

from domainnorm.methods.aad import dispersion, nearest
from tests.methods.bench import METHODS, ONE, fit, rows_changed, scans, source_model
from tests.reference.adaptation import attract_and_disperse


class Watched(METHODS.load("aad")):
    """Compares each step's losses with those written out, from copies made before the step."""

    checked = 0

    def losses(self, batch):
        model = copy.deepcopy(self.model)
        known = (self.probability.values.sum(1) > 0).nonzero().flatten().tolist()
        features = {one: self.feature.values[one].tolist() for one in known}
        rows = {one: self.probability.values[one].log().tolist() for one in known}
        losses = super().losses(batch)
        own, logits = self.features(batch, model=model)
        expected = attract_and_disperse(
            own.tolist(),
            logits.tolist(),
            batch["index"].tolist(),
            features,
            rows,
            count=self.neighbours,
            alpha=(1 + 10 * self.progress) ** -self.beta,
        )
        found = [float(losses[name].detach()) for name in ("attract", "disperse")]
        assert found == pytest.approx(expected, rel=1e-9)
        type(self).checked += 1
        return losses


def test_loss_is_that_of_the_paper():
    options = {"precision": "64-true", "neighbours": 3, "beta": 2.0}
    fit(Watched, source_model(), ONE, epochs=2, batch_size=8, **options)
    assert Watched.checked > 3


def test_banks_hold_training_images_of_the_target_alone():
    method = fit("aad", source_model(), ONE).method
    known = {int(one) for one in (method.probability.values.sum(1) > 0).nonzero()}
    assert known == {
        position
        for position, record in enumerate(scans().records)
        if (record.domain, record.split) == ("colour_cast", "train")
    }


def test_banks_start_as_the_source_model_sees_the_images():
    class Noted(METHODS.load("aad")):
        def on_train_epoch_start(self):
            super().on_train_epoch_start()
            self.first = self.probability.values.clone()

    done = fit(Noted, source_model(), ONE)
    records = enumerate(scans().records)
    index = [at for at, one in records if (one.domain, one.split) == ("colour_cast", "train")]
    pixels = [done.data.evaluation_pipeline(scans().image(at), 0) for at in index]
    logits = source_model().eval()(torch.stack(pixels), "colour_cast")
    torch.testing.assert_close(done.method.first[index], logits.detach().softmax(1))


def test_image_is_no_neighbour_of_itself_though_another_is_as_near():
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    known = torch.tensor([True, True, True, False])
    index = torch.tensor([0, 1])
    assert nearest(bank[index], bank, known, index, 1).tolist() == [[1], [0]]
    assert nearest(bank[index], bank, known, index, 5).tolist() == [[1, 2], [0, 2]]


def test_copies_of_an_image_in_a_batch_do_not_part():
    logits = torch.randn(3, 4)
    assert float(dispersion(logits[[0, 0]], torch.tensor([7, 7]))) == 0
    apart = dispersion(logits[[0, 1, 0]], torch.tensor([7, 8, 7]))
    p = logits.softmax(1)
    assert float(apart) == pytest.approx(float(4 * (p[0] @ p[1]) / 3))


def test_rows_of_the_source_stay():
    done = fit("aad", source_model(), ONE)
    names = {n for n in done.before if "modulation" in n or "statistics" in n}
    assert rows_changed(done.before, done.model, names) == {1}
