"""Image transforms from their formulas, slowly."""

import math

import numpy as np


def fda(image, reference, beta):
    """Yang and Soatto 2020, eq. 3, with the spectrum shifted so that zero is in the middle."""
    height, width = image.shape[:2]
    b = math.floor(beta * min(height, width))
    middle, centre = height // 2, width // 2
    done = np.empty(image.shape)
    for channel in range(3):
        own = np.fft.fftshift(np.fft.fft2(image[..., channel]))
        other = np.fft.fftshift(np.fft.fft2(reference[..., channel]))
        amplitude, phase = np.abs(own), np.angle(own)
        for row in range(middle - b, middle + b + 1):
            for column in range(centre - b, centre + b + 1):
                amplitude[row, column] = abs(other[row, column])
        mixed = np.fft.ifftshift(amplitude * np.exp(1j * phase))
        done[..., channel] = np.fft.ifft2(mixed).real
    return np.clip(np.round(done), 0, 255)


def hed_jitter(image, factors, shifts):
    """Tellez et al. 2018: to stains by the inverse matrix, scale, shift, and back, per pixel."""
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    stains = np.array([row / math.sqrt(sum(row**2)) for row in stains])
    done = np.empty_like(image)
    for place in np.ndindex(image.shape[:2]):
        density = [-math.log((int(value) + 1) / 256) for value in image[place]]
        amounts = np.linalg.solve(stains.T, density) * factors + shifts
        values = [256 * math.exp(-part) - 1 for part in stains.T @ amounts]
        done[place] = [min(255, max(0, round(value))) for value in values]
    return done
