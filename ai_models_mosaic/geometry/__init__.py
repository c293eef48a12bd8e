"""Grids, regridding and harmonics on the sphere."""
