"""The services; each runs as `python -m services NAME`."""

SHARED = ("numpy", "uvicorn", "shared.runtime.process", "shared.events.inputs", "shared.events.results")
"""What every service loads: a process that becomes several of them by fork loads it once."""
