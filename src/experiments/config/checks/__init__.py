"""What is wrong with a config, said before anything is built or written: first without torch, then its classes."""
