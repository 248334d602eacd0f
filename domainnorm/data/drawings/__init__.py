"""Procedural pictures that small samples of datasets are made of."""
