"""Session turns: a session, its turns, and their traces. A session is a thread, a turn is a run."""
