"""Members and products as Zarr and NetCDF."""
