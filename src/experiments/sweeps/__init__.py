"""Many runs: grids, and Optuna studies that prune, survive and go on. Imports nothing heavy by itself.

space.py    overrides -> what is fixed, and distributions
study.py    the storage of a study, shared by processes that may die: asking, giving back, counting
job.py      what runs around one run of a sweep, in whatever process
sweeper.py  asks trials and lets them run: here, in worker processes, or through a launcher
grid.py     Hydra's own grid, whose jobs may fail
needs.py    what has to be installed
"""
