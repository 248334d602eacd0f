"""Which moments normalize a sample; one file each."""
