"""Training of domain encoders, with labels of domains and without any of classes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.encoders.base import Batches, DomainEncoder
from domainnorm.errors import ConditionError

_BATCH = 256
_STEPS = 400  # of the MLP where features are fixed


def fit_encoder(
    encoder: DomainEncoder,
    training: Batches,
    held_out: Batches,
    *,
    seed: int = 0,
    epochs: int = 10,
    lr: float = 3e-3,
    false_alarms: float = 0.01,
) -> None:
    """Train an encoder on the domains of images; class labels are not used.

    The MLP (and the features before it, if they learn) minimizes the cross-entropy of a linear
    classifier of domains, each domain with equal weight. The classifier is then discarded. The
    Gaussians are fitted to the embeddings of the training images, temperature and thresholds to
    those of held-out images.

    Args:
        encoder: Changed in place; left in evaluation mode, without gradients.
        training: Images (or attributes, if the encoder reads these) with domain labels; read
            several times. If features are learned, batches must mix domains.
        held_out: Other images, in the same form.
        seed: Seed of batches and of the classifier.
        epochs: Passes over the images if features are learned.
        lr: Peak learning rate of AdamW.
        false_alarms: See `DomainGaussians.fit_thresholds`.

    Raises:
        ConditionError: No images, or features to learn from batches that come domain after domain.
    """
    generator = torch.Generator().manual_seed(seed)
    features, domain = start_encoder(encoder, training, generator)
    if int(domain.min()) < int(domain.max()):
        _train(encoder, training, features, domain, epochs, lr, generator)
    if encoder.learns_features:
        features, domain = _all_features(encoder, training)
    _fit_domains(encoder, features, domain, held_out, generator, false_alarms)


def start_encoder(
    encoder: DomainEncoder, training: Batches, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Prepare an encoder for training: compute its features, and standardize them.

    Args:
        encoder: Changed in place; left in evaluation mode.
        training: As for `fit_encoder`.
        generator: Random generator of the initial values.

    Returns:
        Features (N, F) and labels of domains (N,) of all images.

    Raises:
        ConditionError: As for `fit_encoder`.
    """
    encoder.prepare(training, generator)
    # What learns features normalizes them by its batches, while it does.
    features, domain = _all_features(encoder, training, learning=encoder.learns_features)
    if encoder.learns_features and len(training) > 1:
        _check_mixed(domain)
    encoder.standardize(features)
    encoder.eval()
    return features, domain


def _check_mixed(domain: Tensor) -> None:
    """Refuse labels (N,) of images in the order of their domains."""
    number, changes = len(set(domain.tolist())), int(domain.diff().count_nonzero())
    if number > 1 and changes < number:
        raise ConditionError(
            f"encoder: the images of {number} domains come one domain after the other, so a step "
            "would see only one; mix them, for example with DataLoader(..., shuffle=True)"
        )


def fit_domains(
    encoder: DomainEncoder,
    training: Batches,
    held_out: Batches,
    *,
    seed: int = 0,
    false_alarms: float = 0.01,
) -> None:
    """Fit only the domains (Gaussians) of an encoder that has already learned its embedding.

    Args:
        encoder: Changed in place; left in evaluation mode.
        training: As for `fit_encoder`.
        held_out: Other images.
        seed: Seed of the drawn examples.
        false_alarms: See `DomainGaussians.fit_thresholds`.

    Raises:
        ConditionError: No images.
    """
    features, domain = _all_features(encoder, training)
    generator = torch.Generator().manual_seed(seed)
    _fit_domains(encoder, features, domain, held_out, generator, false_alarms)


@torch.no_grad()
def _fit_domains(
    encoder: DomainEncoder,
    features: Tensor,
    domain: Tensor,
    held_out: Batches,
    generator: torch.Generator,
    false_alarms: float,
) -> None:
    fitted, of_domain = encoder.examples(features, domain, generator)
    encoder.gaussians.fit(encoder.embed(fitted), of_domain)
    encoder.gaussians.count.copy_(torch.bincount(domain, minlength=encoder.num_domains))
    other, labels = _all_features(encoder, held_out)
    other = encoder.varied(other, generator)
    encoder.gaussians.fit_thresholds(encoder.embed(other), labels, false_alarms)


@torch.no_grad()
def extend_encoder(encoder: DomainEncoder, images: Batches) -> None:
    """Add domains to a fitted encoder from their images alone; nothing else changes.

    Args:
        encoder: Changed in place.
        images: As for `fit_encoder`; only images of unknown domains are used.
    """
    generator = torch.Generator().manual_seed(0)
    encoder.grow(images, generator)
    features, domain = _all_features(encoder, images)
    embedding = encoder.embed(encoder.varied(features, generator))
    known = encoder.gaussians.known.clone()
    for label in sorted(set(domain.tolist())):
        if not known[label]:
            encoder.gaussians.add(embedding[domain == label], label)


def _train(
    encoder: DomainEncoder,
    training: Batches,
    features: Tensor,
    domain: Tensor,
    epochs: int,
    lr: float,
    generator: torch.Generator,
) -> None:
    size = len(encoder.gaussians.whitening)
    classifier = nn.Linear(size, encoder.num_domains)
    with torch.no_grad():
        classifier.weight.normal_(std=size**-0.5, generator=generator)
        classifier.bias.zero_()
    classifier.to(features.device)
    counts = torch.bincount(domain, minlength=encoder.num_domains).to(features)
    share = torch.where(counts > 0, counts.sum() / counts.clamp(min=1), counts)
    weight = share / share.sum() * (counts > 0).sum()
    parameters = [*encoder.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-3)
    if encoder.learns_features:
        batches, total = _image_batches(encoder, training, epochs), epochs * len(training)
    else:
        batches, total = _feature_batches(encoder, features, domain, generator), _STEPS
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    encoder.train().requires_grad_(True)
    with torch.enable_grad():
        for embedding, label in batches:
            loss = F.cross_entropy(classifier(embedding), label, weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
    optimizer.zero_grad()
    encoder.eval().requires_grad_(False)


def _feature_batches(
    encoder: DomainEncoder, features: Tensor, domain: Tensor, generator: torch.Generator
) -> Iterable[tuple[Tensor, Tensor]]:
    for _ in range(_STEPS):
        chosen = torch.randperm(len(features), generator=generator)[:_BATCH].to(features.device)
        yield encoder.embed(encoder.varied(features[chosen], generator)), domain[chosen]


def _image_batches(
    encoder: DomainEncoder, training: Batches, epochs: int
) -> Iterable[tuple[Tensor, Tensor]]:
    for _ in range(epochs):
        for image, label in training:
            if len(label) > 1:  # batch statistics of one image may be none
                yield encoder.embed(encoder.read(image)), label.to(encoder.location.device)


@torch.no_grad()
def _all_features(
    encoder: DomainEncoder, images: Batches, *, learning: bool = False
) -> tuple[Tensor, Tensor]:
    """Features (N, F) and domain labels (N,) of all images, in the mode that is left on."""
    encoder.train(learning)
    found = [
        (encoder.read(image), label.to(encoder.location.device))
        for image, label in images
        if not learning or len(label) > 1  # batch statistics of one image may be none
    ]
    if not found:
        raise ConditionError("encoder: no images to learn from; is a split empty?")
    features, labels = zip(*found, strict=True)
    return torch.cat(features), torch.cat(labels)
