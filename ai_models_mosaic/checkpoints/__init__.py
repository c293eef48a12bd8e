"""Weights: where they are, where they come from, what is in their files."""
