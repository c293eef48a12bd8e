"""The flight recorder: what every member is like at every step, and whether that is as it should be."""
