"""Defaults, environment variables and the configuration file."""
