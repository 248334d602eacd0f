"""Kernels of the norms: nobody has to read them to understand `statistics` and `modulations`."""
