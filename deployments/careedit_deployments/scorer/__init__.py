"""The deployment of the judge, and the batching of its requests."""
