"""Lightning callbacks, one per concern."""
