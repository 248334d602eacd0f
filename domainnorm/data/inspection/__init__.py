"""Inspection of data before anything learns from it: a survey of it, and domains that are found."""
