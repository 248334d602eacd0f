"""Scores of models without target labels, one sample after another, in plain Python numbers."""

import math
from itertools import permutations

import torch


def h(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def entropy(p):
    rows = p.tolist()
    return -sum(map(h, rows)) / len(rows)


def infomax(p):
    rows = p.tolist()
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return h(mean) - sum(map(h, rows)) / len(rows)


def bnm(p):
    """Singular values are the roots of the eigenvalues of PᵀP."""
    values = torch.linalg.eigvalsh(p.T @ p).clamp(min=0).sqrt()
    return float(values.sum()) / math.sqrt(len(p) * min(p.shape))


def snd(p):
    rows, total = p.tolist(), 0.0

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    for n, row in enumerate(rows):
        near = [math.exp(cosine(row, other) / 0.05) for m, other in enumerate(rows) if m != n]
        total += h([one / sum(near) for one in near])
    return total / len(rows)


def corr_c(p):
    rows, classes = p.tolist(), range(p.shape[1])
    table = [[sum(row[a] * row[b] for row in rows) for b in classes] for a in classes]
    size = math.sqrt(sum(x * x for line in table for x in line))
    return sum(table[a][a] for a in classes) / size / math.sqrt(p.shape[1])


def logistic(points, label, strength):
    """Minimum of ``|a|² / 2 + strength Σ log(1 + exp(∓(a·x + b)))``, by Newton's steps."""
    x = torch.cat([points, torch.ones(len(points), 1).double()], 1)
    penalty = torch.ones(x.shape[1]).double()
    penalty[-1] = 0
    weights = torch.zeros(x.shape[1]).double()
    for _ in range(50):
        p = 1 / (1 + torch.exp(-(x @ weights)))
        slope = penalty * weights + strength * x.T @ (p - label)
        curvature = torch.diag(penalty) + strength * (x.T * (p * (1 - p))) @ x
        weights = weights - torch.linalg.solve(curvature, slope)
    return weights


def dev(features, source_features, wrong):
    """You et al. 2019, alg. 1: the weighted error with its control variate, negative."""
    count, other = len(source_features), len(features)
    points = torch.cat([source_features, features]).double()
    label = torch.tensor([0.0] * count + [1.0] * other).double()
    place = torch.tensor([n % 5 for n in range(count)] + [n % 5 for n in range(other)])
    tried = []
    for strength in (0.0001, 0.001, 0.01, 0.1, 1.0):
        logits = [0.0] * len(points)
        for fold in range(5):
            known = points[place != fold]
            mean = known.mean(0)
            scale = ((known - mean) ** 2).mean(0).sqrt()
            fitted = logistic((known - mean) / scale, label[place != fold], strength)
            for n in range(len(points)):
                if place[n] == fold:
                    x = (points[n] - mean) / scale
                    logits[n] = float(x @ fitted[:-1] + fitted[-1])
        losses = [
            math.log(1 + math.exp(-z if y else z)) for z, y in zip(logits, label, strict=True)
        ]
        tried.append((sum(losses), logits))
    logits = min(tried)[1]
    w = [count / other * math.exp(z) for z in logits[:count]]
    we = [a * bool(b) for a, b in zip(w, wrong.tolist(), strict=True)]
    mean_w, mean_we = sum(w) / count, sum(we) / count
    cov = sum((a - mean_we) * (b - mean_w) for a, b in zip(we, w, strict=True)) / (count - 1)
    var = sum((b - mean_w) ** 2 for b in w) / (count - 1)
    eta = -cov / var
    return -(mean_we + eta * mean_w - eta)


def adjusted_mutual_information(first, second):
    """Vinh et al., JMLR 2010, with the expectation as a mean over all permutations."""

    def information(a, b):
        total, n = 0.0, len(a)
        for x in set(a):
            for y in set(b):
                both = sum(u == x and v == y for u, v in zip(a, b, strict=True)) / n
                if both:
                    total += both * math.log(both / (a.count(x) / n * b.count(y) / n))
        return total

    first, second = list(first), list(second)
    chance = [information(first, list(other)) for other in permutations(second)]
    expected = sum(chance) / len(chance)
    largest = (information(first, first) + information(second, second)) / 2
    return (information(first, second) - expected) / (largest - expected)


def mixval(p, label, same):
    shares = []
    for kind in (True, False):
        right = [
            max(range(len(row)), key=row.__getitem__) == one
            for row, one, is_same in zip(p.tolist(), label.tolist(), same.tolist(), strict=True)
            if is_same == kind
        ]
        if right:
            shares.append(sum(right) / len(right))
    return sum(shares) / len(shares)


def agreement(p, q):
    pairs = zip(p.tolist(), q.tolist(), strict=True)
    same = [
        max(range(len(a)), key=a.__getitem__) == max(range(len(b)), key=b.__getitem__)
        for a, b in pairs
    ]
    return sum(same) / len(same)


def ensv(candidates):
    mean = sum(candidates) / len(candidates)
    return [agreement(mean, one) for one in candidates]


def spearman(first, second):
    """Kendall's Rank Correlation Methods: correlation of ranks, equal ones sharing their mean."""

    def ranks(values):
        return [
            sum(one < value for one in values) + (sum(one == value for one in values) + 1) / 2
            for value in values
        ]

    a, b = ranks(first), ranks(second)
    mean = (len(a) + 1) / 2
    cov = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    size = math.sqrt(sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b))
    return cov / size
