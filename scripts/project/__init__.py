"""What writes a project of one's own, for ``scripts/new_project.py``. Works in a checkout alone."""
