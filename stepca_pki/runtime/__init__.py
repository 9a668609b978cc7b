"""Running step-ca: the foreground supervisor, reload and restart."""
