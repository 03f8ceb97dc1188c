"""Checks of saved objects against what the products accept."""
