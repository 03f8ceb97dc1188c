"""Rankings: fuse two of them, group copies of an image, and leave out what a cluster adds to scores."""
