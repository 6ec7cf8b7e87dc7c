"""What a served platform remembers: keys, edits, jobs, sessions, feedback and A/B events in SQL, pictures as files."""
