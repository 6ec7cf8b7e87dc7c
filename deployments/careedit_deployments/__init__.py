"""Ray Serve deployments of careedit. Imports `careedit`; nothing imports it back."""
