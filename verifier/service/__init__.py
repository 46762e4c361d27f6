"""Async use cases. They know the ports and the pure core; nothing of HTTP, SQL, files or the wire."""
