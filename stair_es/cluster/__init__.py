"""The search cluster: clients, documents, indices, bulk writes, token policies and token indices."""
