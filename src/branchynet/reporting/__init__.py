"""What a sweep found, as figures, tables, TensorBoard summaries and files."""
