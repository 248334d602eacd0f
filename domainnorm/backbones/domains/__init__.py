"""What single domains own of a model: in packs, added, taken away, mixed and compared."""
