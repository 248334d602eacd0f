"""Losses of translated images written from their formulas, one number after another."""

import math


def domain_patches(real, domain, made, asked):
    """Sum of the mean hinges of own, other and made patches."""
    own, others, shown = [], [], []
    for maps, label in zip(real, domain, strict=True):
        for d, rows in enumerate(maps):
            for value in (value for row in rows for value in row):
                if d == label:
                    own.append(max(0, 1 - value))
                else:
                    others.append(max(0, 1 + value))
    for maps, label in zip(made, asked, strict=True):
        shown += [max(0, 1 + value) for row in maps[label] for value in row]
    return sum(sum(part) / len(part) for part in (own, others, shown) if part)


def patch_taken(made, asked):
    """Mean of -z of the domain asked for."""
    values = [
        -value
        for maps, label in zip(made, asked, strict=True)
        for row in maps[label]
        for value in row
    ]
    return sum(values) / len(values)


def patch_contrast(maps, wanted, temperature):
    """Mean cross-entropy of each place among all places of its image."""
    losses = []
    for f, g in zip(maps, wanted, strict=True):
        made, real = _places(f), _places(g)
        for p, place in enumerate(made):
            products = [_dot(place, other) / temperature for other in real]
            losses.append(math.log(sum(math.exp(one) for one in products)) - products[p])
    return sum(losses) / len(losses)


def _places(maps):
    """Features of each place, of length 1."""
    found = []
    for y in range(len(maps[0])):
        for x in range(len(maps[0][0])):
            place = [channel[y][x] for channel in maps]
            length = math.sqrt(_dot(place, place))
            found.append([value / length for value in place])
    return found


def _dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))
