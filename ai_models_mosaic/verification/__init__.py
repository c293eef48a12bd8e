"""Forecasts against truth: scores, spectra, reliability, with intervals, tables and pictures."""
