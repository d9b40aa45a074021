"""The tape: one SQLite file, its schema, and the plugin that writes it."""
