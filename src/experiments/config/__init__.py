"""From a command line to a config. Imports no torch."""
