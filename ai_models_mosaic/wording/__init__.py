"""Words of messages: numbers, excerpts, what is hidden, and the log for programs."""
