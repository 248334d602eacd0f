"""Prediction strength, one pair of images at a time."""


def prediction_strength_of(own, foretold, num_parts):
    """Tibshirani and Walther 2005: the least share of pairs of a part that stay together."""
    shares = []
    for part in range(num_parts):
        members = [image for image, found in enumerate(own) if found == part]
        together = pairs = 0
        for first in members:
            for second in members:
                if first != second:
                    pairs += 1
                    together += foretold[first] == foretold[second]
        shares.append(together / pairs if pairs else 0.0)
    return min(shares)
