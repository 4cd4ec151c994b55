"""From logs to batches: reading, numbering, splitting, and looking for leaks. No torch."""
