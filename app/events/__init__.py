"""What happened, in order: the log is the truth, the doorbell wakes, the stream serves."""
