"""Augmentation: steps of a recipe, checked and drawn by seed, and transforms of our own."""
