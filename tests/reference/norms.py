"""Norms written from their formulas, one sample group after another."""

import torch
from torch import nn

from tests.reference.domains import symmetric_divergence
from tests.reference.modulations import reference_scale_shift

BATCH_NORM = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def reference_norm(norm, condition, x):
    """What a norm in training owes ``x`` (N, C, *), from its state before the batch."""
    statistics = norm.statistics
    name = type(statistics).__name__.removesuffix("Statistics").lower()
    normed = _FORMULAS[name](statistics, condition, x)
    scale, shift = reference_scale_shift(norm, condition, x)
    rows = []
    for n in range(len(x)):
        channels = [scale[n, c] * normed[n, c] + shift[n, c] for c in range(x.shape[1])]
        rows.append(torch.stack(channels))
    return torch.stack(rows)


def moments_of(values):
    """Mean and biased variance of a list of numbers (V,)."""
    mean = values.sum() / len(values)
    return mean, ((values - mean) ** 2).sum() / len(values)


def groups_of(labels):
    """Lists of the samples that have the same label."""
    samples = range(len(labels))
    return [[n for n in samples if labels[n] == label] for label in sorted(set(labels))]


def table_of(x, function):
    """(N, C, 2): the mean and variance that ``function(n, c)`` gives."""
    samples, channels = range(len(x)), range(x.shape[1])
    return torch.stack(
        [torch.stack([torch.stack(function(n, c)) for c in channels]) for n in samples]
    )


def by_groups(x, groups):
    """Moments (N, C, 2) of groups of samples."""
    own = {n: group for group in groups for n in group}
    return table_of(x, lambda n, c: moments_of(torch.cat([x[k, c].reshape(-1) for k in own[n]])))


def by_channels(x, num_groups):
    """Moments (N, C, 2) of each sample over groups of channels, and all pixels."""
    width = x.shape[1] // num_groups

    def pooled(n, c):
        first = c // width * width
        return moments_of(x[n, first : first + width].reshape(-1))

    return table_of(x, pooled)


def normalize(x, table, eps):
    """``(x - mean) / sqrt(var + eps)`` with moments (N, C, 2)."""
    rows = []
    for n in range(len(x)):
        channels = [
            (x[n, c] - table[n, c, 0]) / torch.sqrt(table[n, c, 1] + eps) for c in range(x.shape[1])
        ]
        rows.append(torch.stack(channels))
    return torch.stack(rows)


def _domain(statistics, condition, x):
    if statistics.own_share != 1:
        return _shared(statistics, condition, x)
    return normalize(x, by_groups(x, groups_of(condition.domain.tolist())), statistics.eps)


def _shared(statistics, condition, x):
    """Each domain with a mixture of the distributions of its own values and of all domains."""
    groups = groups_of(condition.domain.tolist())
    own = {n: group for group in groups for n in group}

    def moments(group, c):
        return moments_of(torch.cat([x[n, c].reshape(-1) for n in group]))

    def unlike(c):
        """Symmetric divergence of two normal distributions, averaged over pairs of domains."""
        found = []
        for i, one in enumerate(groups):
            for other in groups[:i]:
                (m, v), (m2, v2) = moments(one, c), moments(other, c)
                pair = (m, v + statistics.eps, m2, v2 + statistics.eps)
                found.append(symmetric_divergence(*(value.detach() for value in pair)))
        return sum(found) / len(found) if found else 0.0

    def function(n, c):
        share = statistics.own_share
        if share == "unlike":
            share = unlike(c) / (1 + unlike(c))
        weight = [(1 - share) / len(groups) + share * (group == own[n]) for group in groups]
        known = [moments(group, c) for group in groups]
        mean = sum(w * m for w, (m, _) in zip(weight, known, strict=True))
        pairs = zip(weight, known, strict=True)
        return mean, sum(w * (v + (m - mean) ** 2) for w, (m, v) in pairs)

    return normalize(x, table_of(x, function), statistics.eps)


def _batch(statistics, condition, x):
    return normalize(x, by_groups(x, [list(range(len(x)))]), statistics.eps)


def _instance(statistics, condition, x):
    return normalize(x, by_groups(x, [[n] for n in range(len(x))]), statistics.eps)


def _group(statistics, condition, x):
    return normalize(x, by_channels(x, statistics.num_groups), statistics.eps)


def _positions(x, tokens, function):
    """Apply ``function`` to the channels of every position of every sample."""
    rows = x if tokens else x.movedim(1, -1)
    flat = rows.reshape(-1, rows.shape[-1])
    normed = torch.stack([function(channels) for channels in flat]).reshape(rows.shape)
    return normed if tokens else normed.movedim(-1, 1)


def _layer(statistics, condition, x):
    def function(channels):
        mean, var = moments_of(channels)
        return (channels - mean) / torch.sqrt(var + statistics.eps)

    return _positions(x, statistics.tokens, function)


def _rms(statistics, condition, x):
    def function(channels):
        return channels / torch.sqrt((channels**2).sum() / len(channels) + statistics.eps)

    return _positions(x, statistics.tokens, function)


def _deviation(statistics, condition, x):
    def function(channels):
        _, var = moments_of(channels)
        unbiased = var * len(channels) / (len(channels) - 1)
        return channels / torch.sqrt(unbiased + statistics.eps)

    return _positions(x, statistics.tokens, function)


def distances(statistics, x):
    """Mean squared distance of each sample's style to each centroid, (N, K), as numbers."""
    x = x.detach()
    rows = []
    for n in range(len(x)):
        pairs = [moments_of(x[n, c].reshape(-1)) for c in range(x.shape[1])]
        style = [float(mean) for mean, _ in pairs] + [float(var) ** 0.5 for _, var in pairs]
        scale = [float(var) + statistics.clusters.eps for var in statistics.style_var]
        rows.append(
            [
                sum((a - float(b)) ** 2 / v for a, b, v in zip(style, centre, scale, strict=True))
                / len(style)
                for centre in statistics.centroids
            ]
        )
    return torch.tensor(rows, dtype=torch.float64)


def _cluster(statistics, condition, x):
    apart, eps = distances(statistics, x), statistics.clusters.eps
    if statistics.assignment == "hard":
        return normalize(x, by_groups(x, groups_of(apart.argmin(1).tolist())), eps)
    own = by_groups(x, [[n] for n in range(len(x))])
    weights = torch.exp(-apart / statistics.temperature)
    weights = weights / weights.sum(1, keepdim=True)
    clusters = []
    for k in range(weights.shape[1]):
        share = (weights[:, k] / weights[:, k].sum())[:, None]
        mean = (share * own[..., 0]).sum(0)
        clusters.append((mean, (share * (own[..., 1] + (own[..., 0] - mean) ** 2)).sum(0)))
    mixed = []
    for n in range(len(x)):
        mean = sum(w * m for w, (m, _) in zip(weights[n], clusters, strict=True))
        var = sum(w * (v + (m - mean) ** 2) for w, (m, v) in zip(weights[n], clusters, strict=True))
        mixed.append(torch.stack([mean, var], dim=1))
    return normalize(x, torch.stack(mixed), eps)


def shrunk(tracked, own, size, eps, k=4.0):
    """Gong et al. 2022, sec. 3.1: moments (N, C, 2) of the batch, corrected by each sample's."""
    if size == 1:
        return tracked
    tracked = tracked.expand_as(own)
    rows = []
    for pairs in zip(tracked.flatten(0, 1), own.flatten(0, 1), strict=True):
        (mean, var), (own_mean, own_var) = pairs
        limits = k * ((var + eps) / size) ** 0.5, k * (var + eps) * (2 / (size - 1)) ** 0.5
        corrected = []
        for at, here, limit in zip((mean, var), (own_mean, own_var), limits, strict=True):
            apart = here - at
            if apart > limit:
                corrected.append(at + apart - limit)
            elif apart < -limit:
                corrected.append(at + apart + limit)
            else:
                corrected.append(at + 0 * apart)
        rows.append(torch.stack([corrected[0], corrected[1].clamp(min=0)]))
    return torch.stack(rows).view_as(own)


def _mixed(statistics, condition, x):
    tables = {
        "instance": lambda: by_groups(x, [[n] for n in range(len(x))]),
        "batch": lambda: by_groups(x, [list(range(len(x)))]),
        "domain": lambda: by_groups(x, groups_of(condition.domain.tolist())),
        "layer": lambda: by_channels(x, 1),
        "group": lambda: by_channels(x, statistics.num_groups),
    }
    parts, eps = [tables[name]() for name in statistics.parts], statistics.eps
    if statistics.gate == "learned":
        at = [name in ("batch", "domain") for name in statistics.parts].index(True)
        tracked, other = normalize(x, parts[at], eps), normalize(x, parts[1 - at], eps)
        share = statistics.share
        rows = [share[c] * tracked[:, c] + (1 - share[c]) * other[:, c] for c in range(len(share))]
        return torch.stack(rows, dim=1)
    if statistics.gate == "shrink":
        at = [name in ("batch", "domain") for name in statistics.parts].index(True)
        return normalize(x, shrunk(parts[at], parts[1 - at], x[0, 0].numel(), eps), eps)
    if statistics.gate == "softmax":
        weights = [
            weight.exp() / weight.exp().sum()
            for weight in (statistics.mean_weight, statistics.var_weight)
        ]
        table = sum(
            part * torch.stack([weights[0][p], weights[1][p]]) for p, part in enumerate(parts)
        )
        return normalize(x, table, eps)
    width, number = x.shape[1], len(parts)
    block = [max(p for p in range(number) if c >= width * p // number) for c in range(width)]
    table = torch.stack([parts[block[c]][:, c] for c in range(width)], dim=1)
    return normalize(x, table, eps)


_FORMULAS = {
    "instance": _instance,
    "thumbnail": _instance,
    "domain": _domain,
    "batch": _batch,
    "group": _group,
    "layer": _layer,
    "rms": _rms,
    "deviation": _deviation,
    "cluster": _cluster,
    "mixed": _mixed,
}


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
