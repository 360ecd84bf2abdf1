"""The command line: processes to run, and the product's own verbs as a client of the API."""
