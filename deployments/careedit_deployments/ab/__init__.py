"""A/B in traffic: who gets which expert set, the guard that cuts a failing one out, and shadow arms."""
