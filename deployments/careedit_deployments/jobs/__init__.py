"""Edits that nobody waits for: a queue in the database, workers that hold leases, and webhooks that tell of the end."""
