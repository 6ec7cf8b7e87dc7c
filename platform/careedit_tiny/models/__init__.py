"""The architectures of the tiny family: production classes with small configurations."""
