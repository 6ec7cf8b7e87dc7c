"""The HTTP layer: OpenAI's image editing route, and careedit's own beside it. It imports no torch."""
