"""Zarr stores, opened so that what is missing is said: with zarr 2 and zarr 3, local, zipped or by URL."""
