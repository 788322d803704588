"""Many runs: grids, and Optuna studies that prune, survive and go on. Imports nothing heavy by itself."""
