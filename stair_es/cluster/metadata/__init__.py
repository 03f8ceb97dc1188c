"""The metadata of an index, in `_meta.stair_es`."""
