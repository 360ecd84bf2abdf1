"""Graders: rules that score one sample. Pure evaluation, and the sandbox for graders written in
Python; run as a process of its own (`python -m app.graders`), which knows no database.

`spec` is what a customer writes, `result` what comes back, `evaluate` the way between; `client` is
how the worker and the training process ask.
"""
