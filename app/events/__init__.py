"""What happened, in order: the log is the truth, the doorbell wakes its readers, the stream serves viewers."""
