"""Estimates of disk, memory and time for a corpus."""
