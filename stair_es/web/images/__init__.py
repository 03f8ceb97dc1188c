"""Images for the page: allowed files, rendering."""
