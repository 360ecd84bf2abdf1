"""The resuming client, against servers that drop, refuse, freeze and come back."""
