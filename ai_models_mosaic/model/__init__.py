"""The Mosaic network in PyTorch, written from its specification."""
