"""The worker: claims attempts, holds their leases, starts training, keeps deployments alive."""
