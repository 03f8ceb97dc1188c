"""Documents: how they are built, read, and compared with what is stored."""
