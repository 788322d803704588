"""What lies on disk: run directories, checkpoint files, and what may be loaded from them."""
