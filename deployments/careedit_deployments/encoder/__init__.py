"""The deployment of the text encoders, and the client with which expert replicas call it."""
