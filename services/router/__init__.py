"""The router: raw events and requests in, one topic per domain out, each event under its account."""
