"""The commands: `@hydra.main` shells over plain functions."""
