"""Commands of the served platform; `careedit` finds them through entry points."""
