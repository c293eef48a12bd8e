"""From initial states to written members: steps, ranks, resume, provenance, replay."""
