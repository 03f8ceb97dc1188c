"""Rankings: fuse two of them, and group copies of an image."""
