"""Augmentation: steps of a recipe, checked and drawn by seed, and transforms of our own."""

import os

# albumentations asks a server for its newest version when it is imported, by whichever module.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
