"""Procedural drawings: what samples of datasets are made of."""
