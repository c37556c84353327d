"""A preference method from outside."""
