"""Paint one object into one window."""
