"""Rates of classes from their formula."""

import math
from decimal import Decimal


def rare_class_rates(pixels, temperature):
    """Hoyer et al. 2022, eq. 10 and 11, exactly: ``exp((1 - f) / T)`` overflows a float."""
    shares = [Decimal(count) / sum(pixels) for count in pixels]
    powers = [((1 - share) / Decimal(temperature)).exp() for share in shares]
    rates = [float(power / sum(powers)) for power in powers]
    assert math.isclose(sum(rates), 1)
    return rates
