"""What is done with rankings: fuse two, fold the copies of a picture."""
