"""The HTTP layer: OpenAI's route for image edits, and careedit's own routes. It does not import torch."""
