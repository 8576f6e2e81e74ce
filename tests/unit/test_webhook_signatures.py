"""A delivery proves where it comes from, or is refused: forged, old, altered, missing, and both live secrets."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from services.gateway.webhooks import NAMES
from services.gateway.webhooks.base import Delivery, Forged, Trust
from services.gateway.webhooks.hubspot import HubspotOptions
from services.gateway.webhooks.salesforce import SalesforceOptions
from services.gateway.webhooks.settings import Webhooks, trusts
from services.gateway.webhooks.tools import TOOLS
from shared.errors import Misconfigured
from tests.support import webhooks as made
from tests.support.webhooks import NOW, OTHER_SECRET, PUBLIC_URL, SECRET, TOKEN

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
TIMED = ("zendesk", "hubspot", "stripe", "slack", "customerio")
SIGNED = (*TIMED, "intercom", "segment", "delighted")
UNSIGNED = ("asknicely", "amplitude", "mixpanel", "salesforce", "gong")
TRUST = Trust(secrets=(SECRET, OTHER_SECRET))


def test_every_tool_is_in_one_of_the_lists() -> None:
    assert sorted((*SIGNED, *UNSIGNED)) == sorted(TOOLS) == sorted(NAMES)


def a_signed(tool: str, secret: str = SECRET, at: datetime = NOW, **more: Any) -> Delivery:
    body = made.encoder(tool)(made.payloads(tool)[0])
    url = f"{PUBLIC_URL}/webhooks/{tool}"
    return replace(Delivery(body, made.signed(tool, body, secret, at), NOW, url=url), **more)


def refused(tool: str, delivery: Delivery, trust: Trust = TRUST) -> str:
    with pytest.raises(Forged) as found:
        TOOLS[tool].verify(delivery, trust)
    assert SECRET not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("tool", NAMES)
@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET])
def test_either_live_secret_is_taken(tool: str, secret: str) -> None:
    TOOLS[tool].verify(a_signed(tool, secret), TRUST)


@pytest.mark.parametrize("tool", NAMES)
def test_another_secret_is_refused(tool: str) -> None:
    refused(tool, a_signed(tool, "guessed"))


@pytest.mark.parametrize("tool", NAMES)
def test_a_missing_signature_is_refused(tool: str) -> None:
    refused(tool, a_signed(tool, headers={}))


@pytest.mark.parametrize("tool", NAMES)
def test_without_a_secret_nobody_is_trusted(tool: str) -> None:
    refused(tool, a_signed(tool), Trust())
    refused(tool, a_signed(tool, "", headers=made.signed(tool, b"", "")), Trust())


@pytest.mark.parametrize("tool", SIGNED)
def test_an_altered_body_is_refused(tool: str) -> None:
    delivery = a_signed(tool)
    refused(tool, replace(delivery, body=delivery.body + b" "))
    refused(tool, replace(delivery, body=delivery.body[:-1]))


@pytest.mark.parametrize("tool", TIMED)
@pytest.mark.parametrize("seconds", [-301, 301, -86_400 * 365])
def test_an_old_signature_or_one_ahead_of_time_is_refused(tool: str, seconds: int) -> None:
    assert "old" in refused(tool, a_signed(tool, at=NOW + timedelta(seconds=seconds)))


@pytest.mark.parametrize("tool", TIMED)
@pytest.mark.parametrize("seconds", [-299, 0, 299])
def test_within_the_window_a_signature_is_taken(tool: str, seconds: int) -> None:
    TOOLS[tool].verify(a_signed(tool, at=NOW + timedelta(seconds=seconds)), TRUST)


@pytest.mark.parametrize("tool", TIMED)
def test_the_window_can_be_set(tool: str) -> None:
    TOOLS[tool].verify(a_signed(tool, at=NOW - timedelta(hours=1)), replace(TRUST, window_seconds=7200))


@pytest.mark.parametrize("tool", TIMED)
def test_another_timestamp_than_the_signed_one_is_refused(tool: str) -> None:
    fresh, old = a_signed(tool), a_signed(tool, at=NOW - timedelta(minutes=9))
    for name, value in fresh.headers.items():
        if "timestamp" in name:
            refused(tool, replace(old, headers={**old.headers, name: value}))
    if tool == "stripe":
        time, _, digest = fresh.headers["stripe-signature"].partition(",")
        stolen = f"t={int(time[2:]) - 1},{digest}"
        refused(tool, replace(fresh, headers={"stripe-signature": stolen}))


def spoilt(value: str) -> list[str]:
    """The same signature in other spellings, and others in its place."""
    return [
        "", " ", value + " ", " " + value, value + "\n", value + "=", value[:-1], value.replace("=", "", 1) + "%",
        value + "," + value, "sha1=" + value, "é" * 8, "0" * len(value), value[:-2] + "zz", "v1=" + "00" * 32,
    ]  # fmt: skip


@pytest.mark.parametrize("tool", SIGNED)
def test_only_the_one_spelling_of_a_signature_is_taken(tool: str) -> None:
    delivery = a_signed(tool)
    for name, value in delivery.headers.items():
        for other in spoilt(value):
            if tool == "stripe" and other == value + "," + value:
                continue
            if tool == "stripe" and other in (value + " ", " " + value, value + "\n"):
                continue  # white space between the pairs of a list is part of no signature
            refused(tool, replace(delivery, headers={**delivery.headers, name: other}))


def test_stripe_may_send_several_signatures_but_one_time() -> None:
    delivery = a_signed("stripe")
    time, digest = delivery.headers["stripe-signature"].split(",")
    TOOLS["stripe"].verify(
        replace(delivery, headers={"stripe-signature": f"{time},v1={'0' * 64},{digest},v0=x"}), TRUST
    )
    refused("stripe", replace(delivery, headers={"stripe-signature": f"{time},{time},{digest}"}))
    refused("stripe", replace(delivery, headers={"stripe-signature": digest}))


def test_hubspot_signs_the_address_that_we_configured_and_decodes_some_of_it() -> None:
    delivery = a_signed("hubspot")
    refused("hubspot", replace(delivery, url="https://evil.example/webhooks/hubspot"))
    refused("hubspot", replace(delivery, method="PUT"))
    TOOLS["hubspot"].verify(replace(delivery, url=f"{PUBLIC_URL}/webhooks%2Fhubspot"), TRUST)


def test_hubspot_v1_is_refused_unless_it_is_asked_for() -> None:
    body = b"[]"
    v1 = {
        "x-hubspot-signature-version": "v1",
        "x-hubspot-signature": hashlib.sha256(SECRET.encode() + body).hexdigest(),
    }
    assert "v1" in refused("hubspot", Delivery(body, v1, NOW))
    asked = replace(TRUST, options=HubspotOptions(signature="v1"))
    TOOLS["hubspot"].verify(Delivery(body, v1, NOW), asked)
    refused("hubspot", Delivery(b"[1]", v1, NOW), asked)
    refused("hubspot", Delivery(body, {**v1, "x-hubspot-signature-version": "v2"}, NOW), asked)


# -- tools that sign nothing -------------------------------------------------------------------------


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("tool", UNSIGNED)
def test_a_static_secret_is_taken_from_header_basic_bearer_and_path(tool: str) -> None:
    trust = Trust(secrets=(SECRET,), tokens=(TOKEN,))
    body = made.encoder(tool)(made.payloads(tool)[0])
    for headers in ({"x-webhook-token": SECRET}, basic("any", SECRET), {"authorization": f"Bearer {SECRET}"}):
        TOOLS[tool].verify(Delivery(body, headers, NOW), trust)
    TOOLS[tool].verify(Delivery(body, {}, NOW, token=TOKEN), trust)
    for token in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
        refused(tool, Delivery(body, {}, NOW, token=token), trust)
    refused(tool, Delivery(body, basic(SECRET, ""), NOW), trust)


@pytest.mark.parametrize("tool", [tool for tool in SIGNED if not TOOLS[tool].takes_token])
def test_a_tool_that_signs_is_not_taken_by_a_token(tool: str) -> None:
    refused(tool, a_signed(tool, headers={"x-webhook-token": SECRET}, token=SECRET), Trust((SECRET,), (SECRET,)))


def test_segment_signs_only_the_first_event_so_lists_need_the_token() -> None:
    body = made.as_json([made.segment(), made.segment("identify")])
    signed = Delivery(body, made.signed("segment", body), NOW)
    assert "batching" in refused("segment", signed)
    TOOLS["segment"].verify(replace(signed, token=TOKEN), Trust((SECRET,), (TOKEN,)))


def test_salesforce_messages_of_another_organisation_are_refused() -> None:
    body = made.salesforce_xml(made.salesforce_opportunity())
    trust = Trust(tokens=(TOKEN,), options=SalesforceOptions(organization_ids=("00D000000000001",)))
    TOOLS["salesforce"].verify(Delivery(body, {}, NOW, token=TOKEN), trust)
    other = made.salesforce_xml(made.salesforce_opportunity(), organisation="00D000000000002EAA")
    assert "OrganizationId" in refused("salesforce", Delivery(other, {}, NOW, token=TOKEN), trust)
    assert "OrganizationId" in refused("salesforce", Delivery(b"<x/>", {}, NOW, token=TOKEN), trust)


# -- Gong's JWT --------------------------------------------------------------------------------------


@cache
def a_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    return generate_private_key(65537, 2048)


@cache
def another_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    return generate_private_key(65537, 2048)


def shown(key: Any, *, bare: bool = False) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    encoding = Encoding.DER if bare else Encoding.PEM
    text = key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(text).decode() if bare else text.decode()


URL = f"{PUBLIC_URL}/webhooks/gong"


def a_call(token: str, body: bytes = b"{}") -> Delivery:
    return Delivery(body, {"authorization": f"Bearer {token}"}, NOW, url=URL)


@pytest.mark.parametrize("bare", [False, True])
def test_a_jwt_of_gongs_key_for_this_body_and_address_is_taken(bare: bool) -> None:
    trust = Trust(public_keys=(shown(another_key()), shown(a_key(), bare=bare)))
    TOOLS["gong"].verify(a_call(made.a_jwt(a_key(), b"{}", URL)), trust)
    plain = Delivery(b"{}", {"authorization": made.a_jwt(a_key(), b"{}", URL)}, NOW, url=URL)
    TOOLS["gong"].verify(plain, trust)


NOW_S = int(NOW.timestamp())
BAD_TOKENS: dict[str, Callable[[], str]] = {
    "another key": lambda: made.a_jwt(another_key(), b"{}", URL),
    "another body": lambda: made.a_jwt(a_key(), b"{} ", URL),
    "another address": lambda: made.a_jwt(a_key(), b"{}", URL + "/"),
    "no body claim": lambda: made.a_jwt(a_key(), b"{}", URL, body_sha256=None),
    "no address claim": lambda: made.a_jwt(a_key(), b"{}", URL, webhook_url=None),
    "expired": lambda: made.a_jwt(a_key(), b"{}", URL, exp=NOW_S - 1),
    "not yet valid": lambda: made.a_jwt(a_key(), b"{}", URL, nbf=NOW_S + 3600),
    "a time that is none": lambda: made.a_jwt(a_key(), b"{}", URL, exp="soon"),
    "no algorithm": lambda: made.a_jwt(a_key(), b"{}", URL, algorithm="none"),
    "a symmetric algorithm": lambda: made.a_jwt(a_key(), b"{}", URL, algorithm="HS256"),
    "another hash": lambda: made.a_jwt(a_key(), b"{}", URL, algorithm="RS512"),
    "no signature": lambda: made.a_jwt(a_key(), b"{}", URL).rpartition(".")[0] + ".",
    "two parts": lambda: made.a_jwt(a_key(), b"{}", URL).rpartition(".")[0],
    "padding": lambda: made.a_jwt(a_key(), b"{}", URL) + "=",
    "nonsense": lambda: "a.b.c",
    "empty": lambda: "",
}


@pytest.mark.parametrize("how", BAD_TOKENS)
def test_any_other_jwt_is_refused(how: str) -> None:
    refused("gong", a_call(BAD_TOKENS[how]()), Trust(public_keys=(shown(a_key()),)))


def test_an_hmac_with_the_public_key_as_its_secret_is_refused() -> None:
    """The classic confusion of algorithms."""
    pem = shown(a_key())
    head, claims, _ = made.a_jwt(a_key(), b"{}", URL, algorithm="HS256").split(".")
    forged = base64.urlsafe_b64encode(made._hmac(pem, f"{head}.{claims}".encode())).rstrip(b"=").decode()
    refused("gong", a_call(f"{head}.{claims}.{forged}"), Trust(public_keys=(pem,)))


def test_with_a_public_key_the_key_in_the_url_is_not_enough() -> None:
    trust = Trust(secrets=(SECRET,), public_keys=(shown(a_key()),))
    refused("gong", Delivery(b"{}", {}, NOW, url=URL, token=SECRET), trust)


# -- settings ----------------------------------------------------------------------------------------


def test_secrets_come_from_the_environment_two_at_a_time() -> None:
    env = {"HUNE_WEBHOOK_ZENDESK_SECRET": "one", "HUNE_WEBHOOK_ZENDESK_SECRET_2": " two "}
    found = trusts(Webhooks(), env)
    assert found["zendesk"].secrets == ("one", "two")
    assert found["stripe"].is_empty


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({"HUNE_WEBHOOK_HUBSPOT_SECRET": "x"}, "public_url"),
        ({"HUNE_WEBHOOK_ASKNICELY_TOKEN": "short"}, "HUNE_WEBHOOK_ASKNICELY_TOKEN"),
        ({"HUNE_WEBHOOK_ASKNICELY_TOKEN": "a/b" * 20}, "HUNE_WEBHOOK_ASKNICELY_TOKEN"),
        ({"HUNE_WEBHOOK_GONG_PUBLIC_KEY": "nonsense"}, "HUNE_WEBHOOK_GONG_PUBLIC_KEY"),
    ],
)
def test_what_cannot_work_is_named_at_the_start(env: dict[str, str], names: str) -> None:
    with pytest.raises(Misconfigured, match=names) as found:
        trusts(Webhooks(), env)
    assert all(len(value) < 4 or value not in str(found.value) for value in env.values())


def test_a_disabled_tool_is_not_there() -> None:
    assert "zendesk" not in trusts(Webhooks.model_validate({"tools": {"zendesk": {"enabled": False}}}), {})


def test_a_secret_in_the_file_is_refused() -> None:
    with pytest.raises(ValueError, match="environment variable"):
        Webhooks.model_validate({"tools": {"zendesk": {"secrets": ["zd-secret-value"]}}})


# -- worked examples ---------------------------------------------------------------------------------


def examples() -> list[Any]:
    path = SAMPLES / "signatures.json"
    return json.loads(path.read_text()) if path.exists() else []


def test_worked_examples_are_here_or_skipped() -> None:
    if not examples():
        pytest.skip("no worked examples here")
    assert len(examples()) >= 13


@pytest.mark.parametrize("example", examples(), ids=lambda example: f"{example['scheme']}-{example.get('file')}")
def test_worked_examples_hold_and_break_when_touched(example: Any) -> None:
    body = (SAMPLES / example["file"]).read_bytes() if example.get("file") else example["body"].encode()
    tool = example["scheme"].partition("-")[0]
    if example["scheme"] == "segment":
        pytest.skip("the write key of the HTTP API, not the webhook")
    stamp = example.get("timestamp")
    at = NOW
    if stamp:
        at = datetime.fromisoformat(stamp) if "T" in stamp else datetime.fromtimestamp(int(stamp[:10]), UTC)
    headers = {name.lower(): value for name, value in example["headers"].items()}
    token = headers.pop("(query string)", "").removeprefix("key=") or None
    options = HubspotOptions(signature="v1") if example["scheme"] == "hubspot-v1" else None
    delivery = Delivery(body, headers, at, url=example.get("uri") or "", token=token)
    trust = Trust(secrets=(example["secret"],), options=options)
    TOOLS[tool].verify(delivery, trust)
    refused(tool, delivery, replace(trust, secrets=("another",)))
    if tool in SIGNED:
        refused(tool, replace(delivery, body=body + b"\n"), trust)
