"""What everything else stands on: settings, the database, ids, errors, the clock. Imports nothing of ours."""
