"""Build, run, resume, dry run: the only package that knows networks, data, learning, callbacks and loggers."""
