"""Notify tells people: the right one, once, with the reason."""
