"""A model for use elsewhere: folded to a plain network, fused, or as a program."""
