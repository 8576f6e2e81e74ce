"""How each customer is doing: exact usage, a score with its reasons, and alerts as episodes."""
