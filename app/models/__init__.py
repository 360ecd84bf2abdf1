"""Results of fine-tuning, and their deployments: models made callable."""
