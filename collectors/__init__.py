"""Traffic in, column batches out."""
