"""Images at untrusted http(s) URLs: which addresses may be contacted, how often, and how much is read."""
