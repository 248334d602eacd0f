"""Scale and shift of each sample, written from the formulas, one sample and channel at a time."""

import math
from itertools import product

import torch


def reference_scale_shift(norm, condition, x):
    """The pair that a norm's modulation owes each sample: (N, C) each, or (N, C, *) per pixel."""
    modulation = norm.modulation
    name = type(modulation).__name__.removesuffix("Modulation").lower()
    return _FORMULAS[name](modulation, condition, x)


def _mixture(table, condition, n):
    """Row of sample n, or the sum of rows by its weights."""
    if condition.domain is not None:
        return table[int(condition.domain[n])]
    row = 0
    for d in range(len(table)):
        row = row + condition.weights[n, d] * table[d]
    return row


def _is_unknown(condition):
    return condition.domain is None and condition.weights is None


def _constant(modulation, condition, x):
    rows = [modulation.scale[0] for _ in x], [modulation.shift[0] for _ in x]
    return tuple(map(torch.stack, rows))


def _table(modulation, condition, x):
    if _is_unknown(condition):
        return _constant(modulation.unconditional, condition, x)
    return tuple(
        torch.stack([_mixture(table, condition, n) for n in range(len(x))])
        for table in (modulation.scale, modulation.shift)
    )


def _lowrank(modulation, condition, x):
    if _is_unknown(condition):
        return _constant(modulation.unconditional, condition, x)
    pairs = []
    for name in ("scale", "shift"):
        base = getattr(modulation, name)
        codes, basis = (getattr(modulation, f"{name}_{part}") for part in ("code", "basis"))
        rows = []
        for n in range(len(x)):
            code = _mixture(codes, condition, n)
            channels = [
                base[0, c] + sum(code[r] * basis[r, c] for r in range(len(basis)))
                for c in range(base.shape[1])
            ]
            rows.append(torch.stack(channels))
        pairs.append(torch.stack(rows))
    return tuple(pairs)


def _hyper(modulation, condition, x):
    first, last = modulation.first, modulation.last
    num_features = modulation.scale.shape[1]
    scales, shifts = [], []
    for n in range(len(x)):
        if condition.embedding is not None:
            embedding = condition.embedding[n]
        else:
            embedding = _mixture(modulation.domain_embedding, condition, n)
        hidden = [
            torch.relu((weight * embedding).sum() + bias)
            for weight, bias in zip(first.weight, first.bias, strict=True)
        ]
        output = [
            sum(w * h for w, h in zip(weight, hidden, strict=True)) + bias
            for weight, bias in zip(last.weight, last.bias, strict=True)
        ]
        output = torch.stack(output)
        scales.append(modulation.scale[0] + output[:num_features])
        shifts.append(modulation.shift[0] + output[num_features:])
    return torch.stack(scales), torch.stack(shifts)


def _style(modulation, condition, x):
    scales, shifts = [], []
    for n in range(len(x)):
        if condition.style is None:
            pixels = x[n].reshape(x.shape[1], -1)
            mean = pixels.sum(1) / pixels.shape[1]
            var = ((pixels - mean[:, None]) ** 2).sum(1) / pixels.shape[1]
        else:
            means, variances = condition.style[modulation.path]
            own = n if len(means) > 1 else 0
            mean, var = means[own], variances[own]
        scales.append((var + modulation.eps) ** 0.5)
        shifts.append(mean)
    return torch.stack(scales), torch.stack(shifts)


def _convolve(layer, image):
    """A 3×3 convolution of one image (M, *) with zeros around it, tap by tap."""
    size = image.shape[1:]
    output = layer.bias.reshape(-1, *(1,) * len(size)).expand(-1, *size).clone()
    for tap in product(range(3), repeat=len(size)):
        for place in product(*map(range, size)):
            source = tuple(p + t - 1 for p, t in zip(place, tap, strict=True))
            if all(0 <= s < limit for s, limit in zip(source, size, strict=True)):
                weight = layer.weight[(slice(None), slice(None), *tap)]
                output[(slice(None), *place)] += weight @ image[(slice(None), *source)]
    return output


def _nearest(image, size):
    """``image`` (M, *) at the pixels ``floor(p · old / new)``."""
    output = image.new_empty(len(image), *size)
    for place in product(*map(range, size)):
        old = image.shape[1:]
        source = tuple(math.floor(p * o / s) for p, o, s in zip(place, old, size, strict=True))
        output[(slice(None), *place)] = image[(slice(None), *source)]
    return output


def _spatial(modulation, condition, x):
    num_features = modulation.scale.shape[1]
    axes = (1,) * (x.ndim - 2)
    scales, shifts = [], []
    for image in condition.map.to(modulation.scale.dtype):
        hidden = torch.relu(_convolve(modulation.first, _nearest(image, x.shape[2:])))
        output = _convolve(modulation.last, hidden)
        scales.append(modulation.scale[0].reshape(-1, *axes) + output[:num_features])
        shifts.append(modulation.shift[0].reshape(-1, *axes) + output[num_features:])
    return torch.stack(scales), torch.stack(shifts)


_FORMULAS = {
    "shared": _constant,
    "no": _constant,
    "table": _table,
    "lowrank": _lowrank,
    "hyper": _hyper,
    "style": _style,
    "spatial": _spatial,
}
