"""The judge's deployment, and batches of what it is asked."""
