"""Ray Data evaluation of careedit's expert sets. Imports `careedit`; nothing imports it back."""
