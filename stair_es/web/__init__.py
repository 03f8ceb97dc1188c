"""The HTTP servers: the search page and the encoder, with access control, limits and errors."""
