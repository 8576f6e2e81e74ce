"""All tools by name."""

from __future__ import annotations

from services.gateway.webhooks import (
    amplitude,
    asknicely,
    customerio,
    delighted,
    gong,
    hubspot,
    intercom,
    mixpanel,
    salesforce,
    segment,
    slack,
    stripe,
    zendesk,
)
from services.gateway.webhooks.base import Tool

TOOLS: dict[str, Tool] = {
    module.TOOL.name: module.TOOL
    for module in (
        amplitude,
        asknicely,
        customerio,
        delighted,
        gong,
        hubspot,
        intercom,
        mixpanel,
        salesforce,
        segment,
        slack,
        stripe,
        zendesk,
    )
}
