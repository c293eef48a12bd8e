"""Members and products as GRIB2."""
