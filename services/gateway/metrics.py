"""What the gateway measures; the labels are few: doors, statuses, never a key or an account."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("hune_gateway_requests_total", "HTTP calls by door and status", ["door", "status"])
EVENTS = Counter("hune_gateway_events_total", "Events acknowledged by Kafka or fsynced in the spool", ["door"])
ACK_SECONDS = Histogram(
    "hune_gateway_ack_seconds",
    "From a call's events being read until they were safe",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
IN_FLIGHT = Gauge("hune_gateway_in_flight", "HTTP calls being worked on")
QUEUED_BYTES = Gauge("hune_gateway_queued_bytes", "Bytes waiting for Kafka's acknowledgement")
SUPPRESSED = Counter("hune_gateway_suppressed_total", "Events not taken because their person asked for it", ["door"])
SPOOLED = Counter("hune_gateway_spooled_total", "Records written to the spool because Kafka did not take them")
REPLAYED = Counter("hune_gateway_replayed_total", "Records sent from the spool to Kafka")
SPOOL_BYTES = Gauge("hune_gateway_spool_bytes", "Bytes in the spool")
SPOOL_AGE_SECONDS = Gauge("hune_gateway_spool_age_seconds", "Age of the oldest part of the spool; 0 when it is empty")
SPOOL_DAMAGED = Counter("hune_gateway_spool_damaged_bytes_total", "Bytes of the spool that could not be read back")
POLLED = Counter(
    "hune_gateway_polled_total", "Records of polled tools: sent on, read before, unread", ["tool", "feed", "outcome"]
)
POLL_TROUBLES = Counter(
    "hune_gateway_poll_troubles_total", "Calls to a tool that gave nothing", ["tool", "feed", "kind"]
)
POLL_LAG_SECONDS = Gauge("hune_gateway_poll_lag_seconds", "How far a feed's cursor is behind now", ["tool", "feed"])
CONTACTS_MOVED = Counter("hune_gateway_contacts_moved_total", "Contacts moved from the journal to the vault's tables")
CONTACTS_DAMAGED = Counter("hune_gateway_contacts_damaged_total", "Lines of the contacts' journal that cannot be read")
