"""The commands beside the forecast, one module each."""
