"""Bytes uploaded or produced: content-addressed within one organization, reference-counted."""
