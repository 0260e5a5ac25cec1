"""What is handed to others: models that need nothing of the run, and their loader, which needs no PyTorch."""
