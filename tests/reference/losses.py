"""Losses written from their formulas, one sample and one class after another."""

import math


def probabilities(row):
    largest = max(row)
    powers = [math.exp(value - largest) for value in row]
    return [power / sum(powers) for power in powers]


def entropy(rows):
    """Mean over samples of ``-Σ_k p_k log p_k``."""
    total = 0.0
    for row in rows:
        for p in probabilities(row):
            if p > 0:
                total -= p * math.log(p)
    return total / len(rows)


def cross_entropy(rows, targets, weight=None, smoothing=0.0):
    """``Σ_n Σ_k q[n,k] w[k] (-log p[n,k]) / Σ_n w[y_n]``, q the smoothed label, -1 left out."""
    num_classes = len(rows[0])
    weight = [1.0] * num_classes if weight is None else weight
    total = mass = 0.0
    for row, target in zip(rows, targets, strict=True):
        if target == -1:
            continue
        for label, p in enumerate(probabilities(row)):
            share = smoothing / num_classes + (1 - smoothing) * (label == target)
            total -= share * weight[label] * math.log(p)
        mass += weight[target]
    return total / mass


def balanced_weights(counts):
    """Inverse class counts, scaled so that their mean over images is 1; 0 where there are none."""
    inverse = [1 / count if count else 0.0 for count in counts]
    mean = sum(count * w for count, w in zip(counts, inverse, strict=True)) / sum(counts)
    return [w / mean for w in inverse]


def median_frequency_weights(masks, num_classes):
    """``median f / f[k]``, f[k] the pixels of class k by those of the masks that hold it."""
    frequency = []
    for k in range(num_classes):
        own = sum(mask.count(k) for mask in masks)
        around = sum(sum(label < num_classes for label in mask) for mask in masks if k in mask)
        frequency.append(own / around if own else 0.0)
    found = sorted(f for f in frequency if f)
    middle = found[(len(found) - 1) // 2]
    return [middle / f if f else 0.0 for f in frequency]


def domain_rows(tables):
    """Mean over tables of the mean squared distance of rows to their mean; nested lists."""
    distances = []
    for table in tables:
        total = 0.0
        for c in range(len(table[0])):
            mean = sum(row[c] for row in table) / len(table)
            total += sum((row[c] - mean) ** 2 for row in table)
        distances.append(total / (len(table) * len(table[0])))
    return sum(distances) / len(distances)


def dice(rows, targets):
    """One minus ``2 Σ p g / (Σ p + Σ g)`` of each class that is there, averaged; -1 left out."""
    pairs = [
        (probabilities(row), target)
        for row, target in zip(rows, targets, strict=True)
        if target != -1
    ]
    losses = []
    for k in range(len(rows[0])):
        truth = sum(target == k for _, target in pairs)
        if truth:
            overlap = sum(p[k] for p, target in pairs if target == k)
            losses.append(1 - 2 * overlap / (sum(p[k] for p, _ in pairs) + truth))
    return sum(losses) / len(losses)


def focal(rows, targets, gamma, weight=None):
    """``-Σ w (1 - p)^γ log p / Σ w`` with the probability p and weight w of the true class."""
    total = mass = 0.0
    for row, target in zip(rows, targets, strict=True):
        if target != -1:
            p = probabilities(row)[target]
            w = 1.0 if weight is None else weight[target]
            total -= w * (1 - p) ** gamma * math.log(p)
            mass += w
    return total / mass


def masked_bce(rows, targets):
    """Mean of ``-log p`` of present and ``-log (1 - p)`` of absent findings; -1 left out."""
    terms = []
    for row, answers in zip(rows, targets, strict=True):
        for value, answer in zip(row, answers, strict=True):
            p = 1 / (1 + math.exp(-value))
            if answer != -1:
                terms.append(-math.log(p if answer == 1 else 1 - p))
    return sum(terms) / len(terms)


def covariance(rows):
    """Unbiased, one pair of features after another; nested lists."""
    n, size = len(rows), len(rows[0])
    mean = [sum(row[i] for row in rows) / n for i in range(size)]
    return [
        [
            sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in rows) / (n - 1)
            for j in range(size)
        ]
        for i in range(size)
    ]


def coral(source, target):
    """Sun and Saenko 2016, eq. 1 to 3."""
    size, one, other = len(source[0]), covariance(source), covariance(target)
    distance = sum((one[i][j] - other[i][j]) ** 2 for i in range(size) for j in range(size))
    return distance / (4 * size**2)


def mmd(source, target, exponents):
    """Gretton et al. 2012, eq. 3, one pair of samples after another."""

    def distance(x, y):
        return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))

    everything = [*source, *target]
    width = sum(distance(x, y) for x in everything for y in everything) / len(everything) ** 2

    def kernel(x, y):
        values = [math.exp(-distance(x, y) / (2**v * width)) for v in exponents]
        return sum(values) / len(values)

    def within(rows):
        pairs = [kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(x, y) for x in source for y in target]
    return within(source) + within(target) - 2 * sum(across) / len(across)


def infomax(rows):
    """``mean_n H(p_n) - H(mean_n p_n)``."""
    p = [probabilities(row) for row in rows]
    mean = [sum(row[k] for row in p) / len(p) for k in range(len(p[0]))]
    return entropy(rows) + sum(value * math.log(value) for value in mean)


def singular_values(rows):
    """Lengths of the columns after rotating each pair until all are orthogonal (Hestenes 1958)."""
    columns = [list(column) for column in zip(*rows, strict=True)]

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    for _ in range(30):
        for i in range(len(columns)):
            for j in range(i):
                a, b = columns[i], columns[j]
                angle = 0.5 * math.atan2(2 * dot(a, b), dot(a, a) - dot(b, b))
                c, s = math.cos(angle), math.sin(angle)
                columns[i] = [c * x + s * y for x, y in zip(a, b, strict=True)]
                columns[j] = [c * y - s * x for x, y in zip(a, b, strict=True)]
    return sorted((math.sqrt(dot(column, column)) for column in columns), reverse=True)


def discrepancy(rows, others):
    """Mean over samples and classes of ``|p_k - q_k|``."""
    terms = [
        abs(p - q)
        for row, other in zip(rows, others, strict=True)
        for p, q in zip(probabilities(row), probabilities(other), strict=True)
    ]
    return sum(terms) / len(terms)
