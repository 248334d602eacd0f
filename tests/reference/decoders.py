"""A decoder of masks written from its formulas: loops over places, no convolution of torch."""

from __future__ import annotations

import math

import numpy as np


def pyramid(weights, maps):
    """The finest level (width, 4h, 4w) of `PyramidDecoder` for one image.

    Args:
        weights: Name -> array, the decoder's ``state_dict`` in float64.
        maps: Four arrays (E, h, w).
    """
    levels = []
    for number, one in enumerate(maps):
        place = f"levels.{number}"
        x = _normalized(one, weights, f"{place}.0")
        if number == 0:
            x = _emitted(x, weights, f"{place}.1")
            x = _gelu(_normalized(x, weights, f"{place}.2"))
            x = _emitted(x, weights, f"{place}.4")
            x = _mixed(x, weights, f"{place}.5")
            x = _normalized(x, weights, f"{place}.6")
        elif number == 1:
            x = _mixed(_emitted(x, weights, f"{place}.1"), weights, f"{place}.2")
            x = _normalized(x, weights, f"{place}.3")
        elif number == 2:
            x = _normalized(_mixed(x, weights, f"{place}.1"), weights, f"{place}.2")
        else:
            x = _normalized(_mixed(_pooled(x), weights, f"{place}.2"), weights, f"{place}.3")
        levels.append(x)
    merged = levels[3]
    for step, fine in enumerate(levels[2::-1]):
        doubled = _emitted(merged, weights, f"up.{step}")[:, : fine.shape[1], : fine.shape[2]]
        x = _blurred(fine + doubled, weights, f"smooth.{step}.0")
        merged = _gelu(_normalized(x, weights, f"smooth.{step}.1"))
    return merged


def _normalized(x, weights, place):
    """Each place has mean 0 and variance 1 over its channels, then scale and shift."""
    mean, variance = x.mean(0), x.var(0)
    normal = (x - mean) / np.sqrt(variance + 1e-6)
    scale, shift = weights[f"{place}.weight"], weights[f"{place}.bias"]
    return normal * scale[:, None, None] + shift[:, None, None]


def _emitted(x, weights, place):
    """Each place becomes a block of two by two: a transposed convolution of stride 2."""
    kernel, bias = weights[f"{place}.weight"], weights[f"{place}.bias"]  # (in, out, 2, 2)
    out = np.zeros((kernel.shape[1], 2 * x.shape[1], 2 * x.shape[2]))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            block = np.tensordot(x[:, row, column], kernel, 1) + bias[:, None, None]
            out[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = block
    return out


def _mixed(x, weights, place):
    kernel, bias = weights[f"{place}.weight"][:, :, 0, 0], weights[f"{place}.bias"]
    return np.tensordot(kernel, x, 1) + bias[:, None, None]


def _blurred(x, weights, place):
    kernel, bias = weights[f"{place}.weight"], weights[f"{place}.bias"]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(bias), *x.shape[1:]))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            window = padded[:, row : row + 3, column : column + 3]
            out[:, row, column] = (kernel * window).sum((1, 2, 3)) + bias
    return out


def _pooled(x):
    """The largest of each block of two by two, of what there is of it at the edge."""
    height, width = math.ceil(x.shape[1] / 2), math.ceil(x.shape[2] / 2)
    out = np.zeros((len(x), height, width))
    for row in range(height):
        for column in range(width):
            block = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            out[:, row, column] = block.max((1, 2))
    return out


def _gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
