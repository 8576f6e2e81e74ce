"""Feedback: what customers answered, as scores one may trust."""
