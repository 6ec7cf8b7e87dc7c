"""The learned router."""
