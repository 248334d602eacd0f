import copy

import pytest
import torch

from domainnorm.errors import DomainNormError
from domainnorm.methods.sfda import divergence, shares, weighted_entropy
from domainnorm.tasks import create_segmentation_model
from domainnorm.tasks.segmentation import Segmentation
from tests.methods.bench import METHODS, ONE, fit, make, rows_changed, scans, source_model
from tests.reference.adaptation import sfda

NAMES = ["a", "b", "c"]


def masks(**options):
    model = create_segmentation_model("test_resnet", 3, "dsbn", ONE.all, width=16)
    return METHODS.load("sfda")(model, Segmentation(NAMES), ONE, **options)


def pixels(logits):
    return logits.flatten(2).movedim(1, -1).tolist()


def test_losses_are_those_of_the_paper():
    logits = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    mean = torch.tensor([0.7, 0.2, 0.097, 0.003], dtype=torch.float64)
    priors = torch.rand(3, 4, dtype=torch.float64).softmax(1)
    expected = sfda(pixels(logits), priors.tolist(), mean.tolist())
    found = weighted_entropy(logits, mean), divergence(shares(logits), priors)
    assert [float(one) for one in found] == pytest.approx(expected, rel=1e-12)


def test_entropy_alone_prefers_one_class_everywhere_and_the_prior_does_not():
    collapsed = torch.tensor([20.0, 0.0])[None, :, None, None].expand(1, 2, 8, 8)
    split = collapsed.clone()
    split[..., 4:] = split[..., 4:].flip(1)
    prior = torch.tensor([0.5, 0.5])
    assert weighted_entropy(collapsed, prior) == pytest.approx(
        float(weighted_entropy(split, prior))
    )
    assert (
        divergence(shares(split), prior[None]) < 1e-6 < divergence(shares(collapsed), prior[None])
    )


def test_masks_are_compared_with_what_the_source_model_sees_in_the_same_image():
    method = masks()
    method.source.take(method.model)
    first = copy.deepcopy(method.model).eval()
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter.mul_(1.1)
    batch = {
        "image": torch.rand(2, 3, 64, 64),
        "target": torch.full((2, 64, 64), -1),
        "domain": torch.tensor([1, 1]),
        "labelled": torch.tensor([False, False]),
    }
    prior = shares(first(batch["image"], batch["domain"]))
    logits = copy.deepcopy(method.model)(batch["image"], batch["domain"])
    losses = method.losses(batch)
    torch.testing.assert_close(losses["prior"], divergence(shares(logits), prior))
    assert losses["prior"].requires_grad


def test_given_shares_need_no_copy_of_the_model():
    method = masks(prior=[0.5, 0.3, 0.2])
    assert method.source is None
    assert method.mean_prior.tolist() == pytest.approx([0.5, 0.3, 0.2])


@pytest.mark.parametrize("prior", [[0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.3, 0.3]])
def test_shares_that_are_none_are_refused(prior):
    with pytest.raises(DomainNormError, match=r"method\.prior: .* each of the 3 classes"):
        masks(prior=prior)


def test_mean_shares_are_those_that_the_source_model_predicts():
    done = fit("sfda", source_model(), ONE, epochs=2)
    records = enumerate(scans().records)
    index = [at for at, one in records if (one.domain, one.split) == ("colour_cast", "train")]
    images = [done.data.evaluation_pipeline(scans().image(at), 0) for at in index]
    expected = source_model().eval()(torch.stack(images), "colour_cast").softmax(1).mean(0)
    torch.testing.assert_close(done.method.mean_prior, expected.detach(), rtol=1e-4, atol=1e-6)
    kept, source = done.method.source.model.state_dict(), source_model().state_dict()
    assert all(torch.equal(kept[name], source[name]) for name in source)


def test_rows_of_the_source_stay():
    done = fit("sfda", source_model(), ONE)
    names = {n for n in done.before if "modulation" in n or "statistics" in n}
    assert rows_changed(done.before, done.model, names) == {1}


def test_shares_of_classes_are_those_of_a_batch():
    logits = torch.randn(5, 3)
    torch.testing.assert_close(shares(logits), logits.softmax(1).mean(0, keepdim=True))
    assert make("sfda", source_model()).source is not None
