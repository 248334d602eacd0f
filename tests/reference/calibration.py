"""Calibration one layer, one domain and one channel at a time, in a forward pass for each."""

import numpy as np
import torch


def affine_fit(z, y):
    """Scale and shift (C,) of the least squares ``y ≈ scale · z + shift`` over lists of maps."""
    scales, shifts = [], []
    for channel in range(z[0].shape[0]):
        inputs = np.concatenate([one[channel].flatten().numpy() for one in z])
        wanted = np.concatenate([one[channel].flatten().numpy() for one in y])
        table = np.stack([inputs, np.ones_like(inputs)], axis=1)
        (scale, shift), *_ = np.linalg.lstsq(table, wanted, rcond=None)
        scales.append(scale)
        shifts.append(shift)
    return torch.tensor(np.array(scales)), torch.tensor(np.array(shifts))


def instance_normalized(one, eps):
    """A map (C, H, W) with mean 0 and variance 1 in each channel."""
    rows = []
    for channel in one:
        apart = channel - channel.mean()
        rows.append(apart / torch.sqrt((apart**2).mean() + eps))
    return torch.stack(rows)


def batch_normalized(one, layer):
    """What a batch norm in evaluation makes of a map (C, H, W), ahead of any activation."""
    rows = []
    for c, channel in enumerate(one):
        normalized = (channel - layer.running_mean[c]) / torch.sqrt(
            layer.running_var[c] + layer.eps
        )
        rows.append(layer.weight[c] * normalized + layer.bias[c])
    return torch.stack(rows)


def input_of(network, layer, *arguments):
    """The input of a layer in a forward pass."""
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    network(*arguments)
    hook.remove()
    return seen[0]


def calibrated(model, original, paths, image, domain):
    """Calibrate instance norms at ``paths``, in their order, that replaced batch norms."""
    for path in paths:
        norm, layer = model.backbone.get_submodule(path), original.get_submodule(path)
        taught = input_of(original, layer, image)
        own = input_of(model, norm, image, domain)
        z = [instance_normalized(one, norm.statistics.eps) for one in own]
        y = [batch_normalized(one, layer) for one in taught]
        everything = affine_fit(z, y)
        for row in range(model.num_domains):
            of_domain = [n for n in range(len(image)) if domain[n] == row]
            pair = everything
            if of_domain:
                pair = affine_fit([z[n] for n in of_domain], [y[n] for n in of_domain])
            norm.modulation.scale[row], norm.modulation.shift[row] = pair
    return model
