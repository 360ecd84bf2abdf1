"""Who may do what: organizations, projects, members, API keys; and what they did: the audit log."""
