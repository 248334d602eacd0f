"""A finished run follows a stream of image files."""
