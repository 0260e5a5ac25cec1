"""Data: files on disk to normalised, augmented batches on the training device."""
