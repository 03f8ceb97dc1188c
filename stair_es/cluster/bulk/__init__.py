"""The bulk path: actions, requests with retries, outcomes per document."""
