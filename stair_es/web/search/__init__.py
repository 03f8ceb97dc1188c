"""The HTTP search API of the page: requests, their parameters, responses."""
