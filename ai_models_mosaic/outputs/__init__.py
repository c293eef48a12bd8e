"""Where forecasts go."""
