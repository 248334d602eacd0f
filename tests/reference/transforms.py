"""Image transforms from their formulas, slowly."""

import colorsys
import math

import cv2
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


def rand_conv(image, weight, share):
    """Xu et al. 2021: every output value a sum over channels and a window; the border mirrors."""
    height, width = image.shape[:2]
    reach = weight.shape[-1] // 2
    scaled = (image.astype(float) - 127.5) / 63.75
    wide = np.pad(scaled, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    done = np.empty(image.shape)
    for row, column in np.ndindex(height, width):
        window = wide[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
        for out in range(3):
            total = sum((weight[out, into] * window[..., into]).sum() for into in range(3))
            done[row, column, out] = share * scaled[row, column, out] + (1 - share) * total
    return np.clip(np.round(done * 63.75 + 127.5), 0, 255)


def _cut(value):
    return min(255.0, max(0.0, value))


def _grey(pixel):
    return round((299 * pixel[0] + 587 * pixel[1] + 114 * pixel[2]) / 1000)


def _blend(image, other, factor):
    return np.vectorize(_cut)(other + factor * (image.astype(float) - other))


def brightness(image, factor):
    return _blend(image, 0.0, factor)


def colour(image, factor):
    grey = np.apply_along_axis(_grey, 2, image.astype(int))
    return _blend(image, grey[..., None], factor)


def contrast(image, factor):
    return _blend(image, round(np.apply_along_axis(_grey, 2, image.astype(int)).mean()), factor)


def sharpness(image, factor):
    """Against the image smoothed by ones with a five in the middle; its border stays."""
    smooth = image.astype(float)
    for row in range(1, image.shape[0] - 1):
        for column in range(1, image.shape[1] - 1):
            window = image[row - 1 : row + 2, column - 1 : column + 2].astype(float)
            smooth[row, column] = (window.sum((0, 1)) + 4 * window[1, 1]) / 13
    return _blend(image, smooth, factor)


def posterize(image, bits):
    return np.vectorize(lambda value: int(value) // 2 ** (8 - bits) * 2 ** (8 - bits))(image)


def solarize(image, threshold):
    return np.vectorize(lambda value: int(value) if value < threshold else 255 - int(value))(image)


def autocontrast(image, _):
    least, most = image.min((0, 1)).astype(float), image.max((0, 1)).astype(float)
    return (image - least) * 255 / (most - least)


def equalize(image, _):
    """Each value becomes 255 times the share of values below it, in steps of whole pixels."""
    done = np.empty(image.shape)
    for channel in range(3):
        values = image[..., channel]
        counts = [int((values == value).sum()) for value in range(256)]
        last = [count for count in counts if count][-1]
        step = (sum(counts) - last) // 255
        for value in range(256):
            below = step // 2 + sum(counts[:value])
            done[..., channel][values == value] = min(255, below // step)
    return done


def _around(degrees):
    return (degrees + 180) % 360 - 180


def _hsv(pixel):
    hue, saturation, value = colorsys.rgb_to_hsv(*(int(part) / 255 for part in pixel))
    return [360 * hue, saturation, value]


def _lab(pixel):
    return cv2.cvtColor(np.float32([[pixel]]) / 255, cv2.COLOR_RGB2LAB)[0, 0].tolist()


def channel_moments(pixels, circles=(False,) * 3):
    """Mean and standard deviation of each channel of a list of pixels; degrees on a circle."""
    means, deviations = [], []
    for values, circle in zip(zip(*pixels, strict=True), circles, strict=True):
        if circle:
            x = sum(math.cos(math.radians(v)) for v in values)
            y = sum(math.sin(math.radians(v)) for v in values)
            mean = math.degrees(math.atan2(y, x)) % 360
            squares = [_around(v - mean) ** 2 for v in values]
        else:
            mean = sum(values) / len(values)
            squares = [(v - mean) ** 2 for v in values]
        means.append(mean)
        deviations.append(math.sqrt(sum(squares) / len(values)))
    return means, deviations


SPACES = {"lab": (_lab, (False,) * 3), "hsv": (_hsv, (True, False, False))}


def recolour(image, space, mean, deviation):
    """Shen et al. 2022, sec. 2 (Reinhard): per pixel and channel; hues go around."""
    convert, circles = SPACES[space]
    pixels = [convert(pixel) for pixel in image.reshape(-1, 3)]
    own_mean, own_deviation = channel_moments(pixels, circles)
    done = []
    for pixel in pixels:
        new = []
        for c, value in enumerate(pixel):
            apart = _around(value - own_mean[c]) if circles[c] else value - own_mean[c]
            new.append(apart / own_deviation[c] * deviation[c] + mean[c])
        if space == "hsv":
            sure = [min(1.0, max(0.0, part)) for part in new[1:]]
            rgb = colorsys.hsv_to_rgb(new[0] / 360 % 1, *sure)
        else:
            new[0] = min(100.0, max(0.0, new[0]))
            rgb = cv2.cvtColor(np.float32([[new]]), cv2.COLOR_LAB2RGB)[0, 0]
        done.append([_cut(round(255 * float(part))) for part in rgb])
    return np.array(done).reshape(image.shape)


def colour_statistics(images, space):
    """Centre and spread over images of their channel means and deviations."""
    convert, circles = SPACES[space]
    found = [channel_moments([convert(p) for p in i.reshape(-1, 3)], circles) for i in images]
    means = channel_moments([mean for mean, _ in found], circles)
    deviations = channel_moments([deviation for _, deviation in found])
    return [means[0], deviations[0]], [means[1], deviations[1]]
