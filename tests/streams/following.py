"""A model that knows two domains, and images of these and of a third."""

import torch

from domainnorm.backbones import add_domain, create_model
from domainnorm.encoders import create_encoder, fit_encoder
from domainnorm.tasks import Classification
from tests.encoders.pairs import images, pairs
from tests.made_once import made_once

NEW = 4  # unlike 0 and 1 in brightness and contrast


def make(norm="dsbn", domains=("a", "b"), spare=()):
    """A model, with rows of further domains that its encoder does not know."""
    torch.manual_seed(1)
    model = made(norm, domains)
    for name in spare:
        add_domain(model, name)
    return model


@made_once
def made(norm, domains):
    model = create_model("test_resnet", num_classes=3, norm=norm, domains=list(domains))
    encoder = create_encoder("style", model.num_domains, model.backbone)
    known = range(len(domains))
    fit_encoder(encoder, pairs(known, batches=4), pairs(known, batches=4))
    model.attach_encoder(encoder)
    for owned in model.domain_rows():
        if owned.tensor.is_floating_point():
            torch.nn.init.uniform_(owned.tensor, 0.5, 1.5)
    return model.eval()


def task():
    return Classification(["x", "y", "z"])


def stream(*domains, length=8):
    """Batches of images of one domain each."""
    return [images(domain, length) for domain in domains]
