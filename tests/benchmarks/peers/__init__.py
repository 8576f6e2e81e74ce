"""Other ways to do the same work, one message at a time; each prints its result as JSON in its last line."""
