"""What every service of Hune says in the same words: events, topics, runtime, database, errors."""
