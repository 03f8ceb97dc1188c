"""What an index says of itself in `_meta.stair_es`."""
