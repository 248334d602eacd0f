"""Perturbations written from their formulas, one sample and channel at a time.

Each takes x (N, C, L) and the random numbers that the papers draw.
"""

import torch


def moments(values, eps):
    mean = values.sum() / len(values)
    var = ((values - mean) ** 2).sum() / len(values)
    return mean, (var + eps) ** 0.5


def _per_channel(x, function):
    return torch.stack(
        [torch.stack([function(n, c) for c in range(x.shape[1])]) for n in range(len(x))]
    )


def mixstyle(x, partner, own, eps):
    """own (N,) is λ, partner (N,) the sample that is mixed in."""

    def channel(n, c):
        mean, std = (m.detach() for m in moments(x[n, c], eps))
        other_mean, other_std = (m.detach() for m in moments(x[partner[n], c], eps))
        scale = own[n] * std + (1 - own[n]) * other_std
        shift = own[n] * mean + (1 - own[n]) * other_mean
        return scale * (x[n, c] - mean) / std + shift

    return _per_channel(x, channel)


def padain(x, partner, eps):
    def channel(n, c):
        mean, std = moments(x[n, c], eps)
        other_mean, other_std = (m.detach() for m in moments(x[partner[n], c], eps))
        return other_std * (x[n, c] - mean) / std + other_mean

    return _per_channel(x, channel)


def efdmix(x, partner, own):
    def channel(n, c):
        values = x[n, c].tolist()
        places = sorted(range(len(values)), key=values.__getitem__)
        ranks = {place: rank for rank, place in enumerate(places)}
        other = x[partner[n], c]
        by_rank = sorted(range(len(values)), key=other.tolist().__getitem__)
        return torch.stack(
            [
                x[n, c, i] + (1 - own[n]) * (other[by_rank[ranks[i]]] - x[n, c, i].detach())
                for i in range(len(values))
            ]
        )

    return _per_channel(x, channel)


def dsu(x, mean_noise, std_noise, eps):
    """mean_noise, std_noise (N, C), drawn from N(0, 1)."""
    samples, channels = range(len(x)), range(x.shape[1])
    pairs = [[moments(x[n, c], eps) for c in channels] for n in samples]

    def spread(c, which):
        values = torch.stack([pairs[n][c][which] for n in samples])
        return (((values - values.sum() / len(values)) ** 2).sum() / len(values)) ** 0.5

    def channel(n, c):
        mean, std = pairs[n][c]
        drawn_mean = mean + mean_noise[n, c] * spread(c, 0)
        drawn_std = std + std_noise[n, c] * spread(c, 1)
        return drawn_std * (x[n, c] - mean) / std + drawn_mean

    return _per_channel(x, channel)
