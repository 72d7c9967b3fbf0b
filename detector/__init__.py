"""Column batches in, explained incidents out."""
