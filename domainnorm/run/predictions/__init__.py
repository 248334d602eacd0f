"""Images without labels predicted by a finished run."""
