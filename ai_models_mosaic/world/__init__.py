"""A miniature world: a simulated atmosphere in the layout of WeatherBench 2, to train and to verify on."""
