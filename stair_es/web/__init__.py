"""The server of the search page: HTTP API, access control, thumbnails."""
