"""Logs and metrics, the same for every process."""
