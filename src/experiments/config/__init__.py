"""From a command line to a checked, plain config. Imports no torch."""
