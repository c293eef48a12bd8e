"""How options are declared, and lists of numbers in them."""
