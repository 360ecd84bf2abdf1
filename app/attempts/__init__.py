"""The queue: attempts that workers claim under a lease, fenced by the epoch in the stream's row."""
