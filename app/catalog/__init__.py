"""What can be fine-tuned, and on what: base models, the hardware of live workers."""
