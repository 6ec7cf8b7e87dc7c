"""Expert replicas: a step scheduler around an editor's engine, and one edit from call to events."""
