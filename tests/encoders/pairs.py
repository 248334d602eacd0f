"""Images of domains that differ in style, their attributes, and the label of each."""

import torch


def images(domain, count, size=48):
    return torch.randn(count, 3, size, size) * (1 + domain) + 2 * domain


def attributes(domain, count):
    """A scanner of each domain's own, and an hour that overlaps."""
    hours = (torch.randn(count) + 8 + 4 * domain).tolist()
    return {"scanner": ["ABC"[domain]] * count, "hour": [f"{hour:.2f}" for hour in hours]}


def read_by(encoder):
    """What makes that which an encoder reads, of a domain and a number of images."""
    return attributes if encoder.reads_attributes else images


def rows(given, chosen):
    """Some images of a batch, or the attributes of them."""
    if isinstance(given, dict):
        return {column: values[chosen] for column, values in given.items()}
    return given[chosen]


def together(first, second):
    """One batch of two."""
    if isinstance(first, dict):
        return {column: [*first[column], *second[column]] for column in first}
    return torch.cat([first, second])


class Pairs(list):
    """Batches as `fit_encoder` takes them."""


def pairs(domains, count=12, batches=2, make=images):
    return Pairs(
        (make(domain, count), torch.full((count,), domain))
        for domain in domains
        for _ in range(batches)
    )


def mixed(batches):
    """The same images of domains in batches that have some of each."""
    image, label = (torch.cat(part) for part in zip(*batches, strict=True))
    order = torch.randperm(len(label))
    size = len(batches[0][1])
    return Pairs(zip(image[order].split(size), label[order].split(size), strict=True))
