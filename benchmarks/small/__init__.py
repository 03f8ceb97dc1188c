"""The small benchmark: a comparison of recipes on sets built from packages."""
