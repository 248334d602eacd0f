"""Style features, words of texts and Gaussians of domains, one number at a time."""

import hashlib
import math
import unicodedata

import numpy as np


def style_of(image):
    """Style of one image (C, H, W) as `style_features` defines it, for sides that 64 divides."""
    channels, height, width = image.shape
    grey = image.mean(0)
    found = [channel.mean() for channel in image]
    found += [0.5 * math.log(channel.var() + 1e-6) for channel in image]
    found.append(math.log(np.abs(np.diff(grey, axis=0)).mean() + 1e-6))
    found.append(math.log(np.abs(np.diff(grey, axis=1)).mean() + 1e-6))
    small = image.reshape(channels, 64, height // 64, 64, width // 64).mean((2, 4))
    white = []
    for channel in small:
        apart = channel - channel.mean()
        white.append(apart / math.sqrt((apart**2).mean() + 1e-6))
    found += [(channel**3).mean() for channel in white]
    for first in range(channels):
        for second in range(first + 1, channels):
            found.append((white[first] * white[second]).mean())
    spectrum = np.abs(np.fft.fft2(small.mean(0), norm="ortho"))
    rings = [[] for _ in range(8)]
    for row, vertical in enumerate(np.fft.fftfreq(64)):
        for column in range(33):
            radius = math.hypot(vertical, column / 64)
            if 0 < radius < 0.5:
                rings[int(radius * 16)].append(math.log(spectrum[row, column] + 1e-3))
    return np.array(found + [np.mean(ring) for ring in rings])


def mahalanobis(embedding, mean, covariance):
    """Squared distances (N, D), by solving one system for each pair."""
    return np.array(
        [[(e - m) @ np.linalg.solve(covariance, e - m) for m in mean] for e in embedding]
    )


def channel_moments(maps):
    """Mean of each channel, then log standard deviations, of maps (C, *)."""
    flat = [channel.reshape(-1) for channel in maps]
    spread = [math.log(math.sqrt(((one - one.mean()) ** 2).mean() + 1e-6)) for one in flat]
    return [one.mean() for one in flat] + spread


def text_of(column, text, buckets):
    """Buckets of a text (B,) as the encoder ``text`` defines them, character by character."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found, word, vector = [], "", np.zeros(buckets)
    for letter in plain + " ":
        if letter.isalnum():
            word += letter
        elif word:
            found, word = found + [word] * (word not in found), ""
    for word in found:
        marked = "<" + word + ">"
        pieces = [marked]
        for start in range(len(marked)):
            for length in (3, 4, 5):
                piece = marked[start : start + length]
                if len(piece) == length and piece not in pieces:
                    pieces.append(piece)
        for piece in pieces:
            digest = hashlib.blake2b((column + "\0" + piece).encode(), digest_size=8).digest()
            number = sum(byte << 8 * place for place, byte in enumerate(digest))
            vector[number // 2 % buckets] += 1 if number % 2 else -1
    norm = np.sqrt((vector**2).sum())
    return vector / norm if norm else vector
