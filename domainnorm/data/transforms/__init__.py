"""Image transforms that albumentations lacks, one file each."""
