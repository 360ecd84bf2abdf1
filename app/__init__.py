"""Luthier: one GraphQL API, with live subscriptions, over every place a model can be fine-tuned.

A door (GraphQL, REST, the worker, the CLI) opens one transaction and calls one verb of one service;
the service changes rows through its repository and appends events to the log; the door commits;
after the commit the doorbell rings, and every process with viewers reads the log once and hands the
new events to all of them.
"""
