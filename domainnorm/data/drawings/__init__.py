<<<<<<< HEAD
"""Procedural drawings: what samples of datasets are made of."""
=======
"""Procedural pictures for synthetic samples in official layouts: NumPy and OpenCV, seeded."""
>>>>>>> medical
