"""Where bytes are: local files, object stores, cells, and how they are listed and read."""
