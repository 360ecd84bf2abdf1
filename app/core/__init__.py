"""What all else stands on: settings, the database, ids, errors, the clock."""
