"""Where scale and shift come from; one file each."""
