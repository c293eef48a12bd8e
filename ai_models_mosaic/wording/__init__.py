"""Words of messages: numbers, excerpts, and what is hidden."""
