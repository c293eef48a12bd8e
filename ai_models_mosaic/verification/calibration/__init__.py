"""Fits factors on the noise or on the spread of an ensemble to forecasts and truth of past dates."""
