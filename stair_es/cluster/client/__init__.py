"""The connection to a cluster: TLS, credentials, retries, capabilities, errors."""
