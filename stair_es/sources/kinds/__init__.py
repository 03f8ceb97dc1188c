"""The source kinds."""
