"""Images of one's own: lists of files, reading them, keeping them decoded."""
