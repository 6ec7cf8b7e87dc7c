"""What a served platform stores: keys, edits, jobs, sessions, feedback and A/B events in SQL, pictures as files."""
