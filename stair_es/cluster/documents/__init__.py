"""Documents: how they are built, read, changed, and compared with what is stored."""
