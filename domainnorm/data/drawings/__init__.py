"""Procedural pictures for synthetic samples in official layouts: NumPy and OpenCV, seeded."""
