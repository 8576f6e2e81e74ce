"""Webhooks of other tools: one pure file per tool, from a signed delivery to canonical events."""

NAMES = (
    "amplitude",
    "asknicely",
    "customerio",
    "delighted",
    "gong",
    "hubspot",
    "intercom",
    "mixpanel",
    "salesforce",
    "segment",
    "slack",
    "stripe",
    "zendesk",
)
