"""Labels from elsewhere: files of labels with confidences, their import into an index, and how far they can be trusted."""
