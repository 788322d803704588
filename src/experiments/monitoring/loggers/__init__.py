"""Loggers, what they are told, and the record that they go on from."""
