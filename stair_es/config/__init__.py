"""Defaults, environment variables and settings of this machine."""
