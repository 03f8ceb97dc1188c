"""Options that several commands share, and the configuration file."""
