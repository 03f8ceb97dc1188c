"""The page for search and inspection."""
