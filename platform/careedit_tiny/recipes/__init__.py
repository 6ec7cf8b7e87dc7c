"""The recipes that make the tiny family."""
