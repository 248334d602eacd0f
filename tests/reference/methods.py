"""What methods compute, one image and one number at a time."""

import math


def pooled_moments(maps):
    """Mean and biased variance of each channel over a list of maps (C, H, W)."""
    means, variances = [], []
    for channel in range(maps[0].shape[0]):
        values = [value for one in maps for value in one[channel].double().flatten().tolist()]
        mean = sum(values) / len(values)
        means.append(mean)
        variances.append(sum((value - mean) ** 2 for value in values) / len(values))
    return means, variances


def warmup_cosine(step, steps, warmup):
    """Factor of the learning rate at one step."""
    rising = int(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


def warmup_poly(step, steps, warmup):
    """As `warmup_cosine`; the power is that of DeepLab."""
    rising = int(warmup * steps)
    return (
        (step + 1) / (rising + 1) if step < rising else ((steps - step) / (steps - rising)) ** 0.9
    )


def warmup_step(step, steps, warmup):
    """As `warmup_cosine`, a tenth after each third."""
    rising = int(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    thirds = [rising + (steps - rising) * third / 3 for third in (1, 2)]
    return 1 / 10 ** sum(step >= end for end in thirds)


def warmup_constant(step, steps, warmup):
    """As `warmup_cosine`."""
    return min(1, (step + 1) / (int(warmup * steps) + 1))
