"""The small benchmark: recipes beside each other on sets that packages give."""
