"""Perceptual losses written from their formulas, one number after another; nested lists."""

import math


def smoothed(maps):
    """``C · exp f[c] / Σ_c exp f[c]`` at each place."""
    done = []
    for image in maps:
        channels, height, width = len(image), len(image[0]), len(image[0][0])
        own = [[[0.0] * width for _ in range(height)] for _ in range(channels)]
        for y in range(height):
            for x in range(width):
                total = sum(math.exp(image[c][y][x]) for c in range(channels))
                for c in range(channels):
                    own[c][y][x] = channels * math.exp(image[c][y][x]) / total
        done.append(own)
    return done


def content(maps, wanted):
    """Mean squared difference over the variance (of N - 1) of what is wanted."""
    pairs = list(zip(_values(maps), _values(wanted), strict=True))
    mean = sum(g for _, g in pairs) / len(pairs)
    variance = sum((g - mean) ** 2 for _, g in pairs) / (len(pairs) - 1)
    return sum((f - g) ** 2 for f, g in pairs) / len(pairs) / variance


def style(maps, asked, real, domain):
    """Mean over asked domains and channels of squared differences of moments."""
    total, labels = 0.0, sorted(set(asked))
    channels = len(maps[0])
    for label in labels:
        own = [_moments(maps, asked, label, c) for c in range(channels)]
        theirs = [_moments(real, domain, label, c) for c in range(channels)]
        unit = sum(deviation for _, deviation in theirs) / channels
        for (m, s), (wanted_m, wanted_s) in zip(own, theirs, strict=True):
            total += ((m - wanted_m) ** 2 + (s - wanted_s) ** 2) / unit**2 / channels
    return total / len(labels)


def variation(image):
    """Mean distance of neighbours below, and beside."""
    below, beside = [], []
    for channel in (channel for one in image for channel in one):
        for y, row in enumerate(channel):
            for x, value in enumerate(row):
                if y + 1 < len(channel):
                    below.append(abs(channel[y + 1][x] - value))
                if x + 1 < len(row):
                    beside.append(abs(row[x + 1] - value))
    return sum(below) / len(below) + sum(beside) / len(beside)


def _moments(maps, labels, label, channel):
    chosen = [image[channel] for image, own in zip(maps, labels, strict=True) if own == label]
    means, deviations = [], []
    for image in chosen:
        values = [value for row in image for value in row]
        mean = sum(values) / len(values)
        means.append(mean)
        deviations.append(math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + 1e-5))
    return sum(means) / len(means), sum(deviations) / len(deviations)


def _values(maps):
    return [value for image in maps for channel in image for row in channel for value in row]
