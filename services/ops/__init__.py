"""Ops decides how much of us each account gets, from whom, and when somebody should be in touch."""
