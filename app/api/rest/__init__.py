"""The OpenAI-compatible door: files and chat completions."""
