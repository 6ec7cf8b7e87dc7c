"""The command `careedit eval`."""
