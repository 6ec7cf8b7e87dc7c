"""Commands of the drawn world: scenes, training, demo."""
