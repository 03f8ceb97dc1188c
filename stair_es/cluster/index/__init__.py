"""Indices: mappings, creation, settings during a load, aliases."""
