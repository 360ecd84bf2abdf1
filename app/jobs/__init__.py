"""Fine-tuning jobs: what a customer submitted, and everything that can be done to it."""
