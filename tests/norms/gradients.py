"""Gradients of two computations of the same."""

import torch


def assert_same_gradients(found, wanted, given):
    """Both outputs have the same gradients in all that was given."""
    weight = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(found, given, weight),
        torch.autograd.grad(wanted, given, weight),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
