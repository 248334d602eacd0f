"""An encoder that learns through the loss of the task, with norms that take its embedding."""

import pytest
import torch
import torch.nn.functional as F

from domainnorm.backbones import create_model
from domainnorm.encoders import create_encoder


def batch(count):
    """Images whose class is which half is bright, the other way round where noise is strong."""
    target, noisy = torch.randint(0, 2, (2, count))
    sign = ((2.0 * target - 1) * (1 - 2.0 * noisy))[:, None, None, None]
    image = torch.randn(count, 3, 32, 32) * (0.2 + 0.6 * noisy[:, None, None, None])
    return torch.cat([image[:, :, :16] + 0.5 * sign, image[:, :, 16:] - 0.5 * sign], 2), target


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = create_model("test_resnet", num_classes=2, norm="film", domains=["a", "b"])
    encoder = create_encoder("style", 2, model.backbone)
    encoder.standardize(encoder.features(batch(128)[0]).detach())
    first = encoder.mlp[0].weight.detach().clone()
    optimizer = torch.optim.AdamW([*model.parameters(), *encoder.parameters()], lr=3e-3)
    for _ in range(40):
        image, target = batch(32)
        logits = model(image, embedding=encoder.embed(encoder.features(image)))
        optimizer.zero_grad()
        F.cross_entropy(logits, target).backward()
        optimizer.step()
    assert not torch.equal(encoder.mlp[0].weight, first)  # no label of a domain was there
    return model.eval(), encoder.eval()


@torch.no_grad()
def accuracy(model, image, target, embedding):
    return float((model(image, embedding=embedding).argmax(1) == target).float().mean())


def test_norms_follow_what_the_encoder_sees(trained):
    model, encoder = trained
    image, target = batch(200)
    embedding = encoder.embed(encoder.features(image)).detach()
    assert accuracy(model, image, target, embedding) > 0.95
    assert accuracy(model, image, target, embedding[torch.randperm(200)]) < 0.7
