"""Running a network with exits that are really taken, and what it costs."""
