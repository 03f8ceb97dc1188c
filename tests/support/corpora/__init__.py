"""Images, vectors and indices that several tests read."""
