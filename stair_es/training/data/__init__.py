"""From caption sets to batches."""
