"""Norm layers of any network found, and replaced by conditional ones."""
