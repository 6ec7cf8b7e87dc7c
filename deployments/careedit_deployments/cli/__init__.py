"""Commands of the serving side; `careedit` finds them through entry points."""
