"""Train networks with side exits, choose their exit thresholds, and prove what the exits save."""

__version__ = "0.1.0"
