"""The search cluster: connection, index, documents, bulk."""
