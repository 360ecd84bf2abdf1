"""One process per base model: it and its adapters, answered over vLLM's HTTP interface.

A program of its own (`python -m app.serving`) on loopback, started and watched by the worker. It
knows no database and no tenant: whoever calls it has decided who may call which model. On a GPU,
`vllm serve --enable-lora` takes its place with nothing above it changed.

Importing this package, `protocol` and `launch` costs no torch.
"""
