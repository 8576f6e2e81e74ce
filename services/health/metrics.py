"""Prometheus metrics of health."""

from __future__ import annotations

from prometheus_client import Counter

SET_ASIDE = Counter("hune_accounts_set_aside_total", "accounts that a tick could not look at; tried again in an hour")
