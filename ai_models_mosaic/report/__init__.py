"""Pictures of an ensemble without truth, and a page of them that opens anywhere.

The functions that draw take an `xarray.Dataset` and return a `matplotlib.figure.Figure`:

=====================  =======================================================
`maps`                 mean and spread, a member, the probability of a threshold
`stamps`               every member, small
`spaghetti`            one contour of every member
`plumes`               members and quantiles at a point, by valid time
`track_maps`           tropical cyclones, and where they strike
`scenarios`            few members that stand for all; `stamps` draws them
`origins`              where the variance of a crossed ensemble comes from
=====================  =======================================================

`ensemble.open_ensemble` opens what they draw, in GRIB, Zarr or NetCDF, and reads it field by field.
"""
