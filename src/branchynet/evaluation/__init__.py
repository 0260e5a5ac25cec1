"""From what every exit said to a choice of thresholds and its proof."""
