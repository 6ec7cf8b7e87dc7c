"""Training of learned routers: teaching one a new expert, and the parts that a recipe from nothing is made of."""
