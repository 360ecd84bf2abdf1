"""Live results to many viewers: executed and encoded once per group, written without a queue."""
