"""From files, stores and services to checked initial states."""
