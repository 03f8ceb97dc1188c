"""Defaults, environment variables and settings of this machine, and token policies in files."""
