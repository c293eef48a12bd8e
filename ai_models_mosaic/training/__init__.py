"""Training: losses, data, the loop, and the recipe that describes a run."""
