"""`careedit bench serve`: the served platform against the same editor in one process, behind LitServe and behind FastAPI."""
