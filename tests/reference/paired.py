"""Losses between an image and the one that it should be, as loops over nested lists."""

import math


def charbonnier(image, wanted, eps):
    """Mean of sqrt((x - y)² + ε²)."""
    pairs = list(zip(_values(image), _values(wanted), strict=True))
    return sum(math.sqrt((x - y) ** 2 + eps**2) for x, y in pairs) / len(pairs)


def gradients(image, wanted):
    """Mean absolute difference of steps to the pixel below, and of those to the one beside."""
    below, beside = [], []
    for one, other in zip(_channels(image), _channels(wanted), strict=True):
        for y in range(len(one)):
            for x in range(len(one[0])):
                if y + 1 < len(one):
                    step, wanted_step = one[y + 1][x] - one[y][x], other[y + 1][x] - other[y][x]
                    below.append(abs(step - wanted_step))
                if x + 1 < len(one[0]):
                    step, wanted_step = one[y][x + 1] - one[y][x], other[y][x + 1] - other[y][x]
                    beside.append(abs(step - wanted_step))
    return sum(below) / len(below) + sum(beside) / len(beside)


def psnr(image, wanted):
    """Decibels of one image, values 0 to 1."""
    pairs = list(zip(_values([image]), _values([wanted]), strict=True))
    return -10 * math.log10(sum((x - y) ** 2 for x, y in pairs) / len(pairs))


def _channels(images):
    return [channel for image in images for channel in image]


def _values(images):
    return [value for channel in _channels(images) for row in channel for value in row]
