"""Looking at what an index holds: an image's words, and the words of the corpus."""
