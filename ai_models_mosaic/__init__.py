"""Mosaic, the probabilistic global weather model, as a plugin of ECMWF's ai-models runner.

Importing this package, its plugin or its command never imports torch: listing fields, requests
or assets has to answer at once, also on a machine without a GPU.
"""

__version__ = "0.1.0"
