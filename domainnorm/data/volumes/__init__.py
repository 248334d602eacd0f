"""Volumes and other images of scanners: NIfTI, DICOM, and their grey values."""
