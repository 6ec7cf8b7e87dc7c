"""The early filter: which of several starting noises is worth finishing."""
