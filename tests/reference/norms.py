"""Norms written from their formulas, one sample group after another."""

import torch
from torch import nn

BATCH_NORM = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def groups_of(statistics, domain):
    """Lists of sample indices that share moments."""
    samples = list(range(len(domain)))
    if statistics == "instance":
        return [[n] for n in samples]
    if statistics == "batch":
        return [samples]
    return [[n for n in samples if domain[n] == d] for d in sorted(set(domain.tolist()))]


def normalize(statistics, x, scale, shift, domain, eps=1e-5):
    """``scale[n] (x[n] - mean) / sqrt(var + eps) + shift[n]``, the moments of n's group.

    x (N, C, *); scale, shift (N, C); domain (N,).
    """
    output = [None] * len(x)
    for group in groups_of(statistics, domain):
        for c in range(x.shape[1]):
            values = torch.cat([x[n, c].reshape(-1) for n in group])
            mean = values.sum() / len(values)
            var = ((values - mean) ** 2).sum() / len(values)
            for n in group:
                output[n] = output[n] or []
                normed = (x[n, c] - mean) / torch.sqrt(var + eps)
                output[n].append(scale[n, c] * normed + shift[n, c])
    return torch.stack([torch.stack(channels) for channels in output])


class LoopOfBatchNorms(nn.Module):
    """A ``torch.nn.BatchNorm`` per domain, each given the samples of its domain."""

    def __init__(self, num_features, num_domains, ndim=4, **options):
        super().__init__()
        kind = BATCH_NORM[ndim]
        self.norms = nn.ModuleList(kind(num_features, **options) for _ in range(num_domains))

    def forward(self, x, domain):
        output = torch.empty_like(x)
        for d, norm in enumerate(self.norms):
            if (domain == d).any():
                output[domain == d] = norm(x[domain == d])
        return output

    def stacked(self, name):
        return torch.stack([getattr(norm, name) for norm in self.norms])
