"""Grader runs: one sample, judged once by a worker while a request waits for it."""
