"""Plugins that add fields to documents or change pixels."""
