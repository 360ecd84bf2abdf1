"""Adapters: each speaks the wire format of one place where models are tuned. No database here."""
