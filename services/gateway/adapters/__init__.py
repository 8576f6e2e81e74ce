"""One pure file per family of SDKs: from a request's bytes to canonical events."""
