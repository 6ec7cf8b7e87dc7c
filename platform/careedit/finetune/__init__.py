"""Recipes that make the tiny family, and the loop that they share."""
