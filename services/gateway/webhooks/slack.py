"""Slack: buttons in messages (block_actions) and slash commands. Both are requests, not events.

| Slack | request |
|---|---|
| a button | request.made: the demand that `options.actions` gives for its action_id, else the action_id if it is one |
| a slash command | request.made in words: the command's name and its text |

A button's `value` is a JSON object of parameters (`account_id` in it names the account), or a bare id, which becomes
`alert_id`, `case_id`, `task_id` … after the demand. The request also says who: user `slack:USER`, parameters
`slack_user_id`, `slack_channel_id`, `slack_message_ts`. Id: from team, message, action, user and action_ts; own time:
action_ts. A command: its trigger_id; Slack tells no time. The body of the 200 is empty; what becomes of the request
is for the message's owner to show.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import msgspec
from pydantic import field_validator

from services.gateway.canonical import Canonical, OwnTime, from_epoch, rfc3339
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Answer,
    Delivery,
    Options,
    Tool,
    Trust,
    Unreadable,
    at,
    each,
    event,
    ident,
    items,
    json_of,
    mapping,
    needed,
    options_of,
    person,
)
from shared.ids import derived_id

SOURCE = "slack"
MAX_FIELDS = 200
LINKS = ("open_account",)
"""Buttons that only open a page; Slack tells of them all the same."""
SUBJECTS = ("alert", "case", "task", "playbook", "review", "plan", "theme", "account", "score")
DROPPED = (
    "token",
    "api_app_id",
    "trigger_id of a button",
    "response_url",
    "enterprise",
    "is_enterprise_install",
    "container.type",
    "container.is_ephemeral",
    "state",
    "message",
    "channel.name",
    "team.domain",
    "user.name",
    "user.username",
    "user.team_id",
    "actions[].text",
    "actions[].type",
    "channel_name of a command",
    "team_domain of a command",
    "user_name of a command",
)


class SlackOptions(Options):
    """`actions`: which demand an action_id stands for."""

    actions: dict[str, str] = {
        "ack_alert": "alert.acknowledge",
        "snooze_alert": "alert.snooze",
        "resolve_alert": "alert.resolve",
        "rate_alert": "alert.rate",
    }

    @field_validator("actions")
    @classmethod
    def _actions(cls, given: dict[str, str]) -> dict[str, str]:
        for action, demand in given.items():
            if demand.partition(".")[0] not in SUBJECTS or not demand.partition(".")[2]:
                raise ValueError(f"{action}: {demand!r} is no action such as alert.acknowledge")
        return given


def events(delivery: Delivery) -> list[Canonical]:
    form = _form(delivery.body)
    if "payload" in form:
        payload = json_of(form["payload"].encode())
        if not isinstance(payload, dict) or payload.get("type") != "block_actions":
            raise Unreadable(f"interaction {str(mapping(payload).get('type'))[:40]!r} is not known")
        return each(items(payload.get("actions")), lambda action: _pressed(delivery, payload, mapping(action)))
    if "command" in form:
        return _commanded(delivery, form)
    raise Unreadable("the form holds neither payload nor command")


def _form(body: bytes) -> dict[str, str]:
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FIELDS)
    except (UnicodeDecodeError, ValueError):
        raise Unreadable("the body is no form") from None
    return {name: values[0] for name, values in fields.items()}


def _pressed(delivery: Delivery, payload: dict[str, Any], action: dict[str, Any]) -> list[Canonical]:
    name = needed(ident(action.get("action_id")), "action_id")
    if name in LINKS:
        return []
    demand = options_of(delivery, SlackOptions).actions.get(name, name)
    subject, dot, verb = demand.partition(".")
    if subject not in SUBJECTS or not dot or not verb:
        raise Unreadable(f"action_id {name[:100]!r} stands for no request; name it under options.actions of slack")
    user = needed(ident(at(payload, "user.id")), "user.id")
    channel = ident(at(payload, "container.channel_id")) or ident(at(payload, "channel.id"))
    message = ident(at(payload, "container.message_ts"))
    pressed = needed(ident(action.get("action_ts")), "action_ts")
    parameters = _parameters(action, subject)
    account = ident(parameters.pop("account_id", None))
    told = {"slack_user_id": user, "slack_channel_id": channel, "slack_message_ts": message}
    parts = (at(payload, "team.id"), channel, message, action.get("block_id"), name, user, pressed)
    id = derived_id(SOURCE, *(ident(part) or "" for part in parts))
    return [
        event(
            delivery,
            SOURCE,
            "request.made",
            id,
            _time(pressed),
            key=account or id,
            user_id=person(SOURCE, user),
            account_id=account,
            demand=demand,
            parameters=parameters | {key: value for key, value in told.items() if value},
        )
    ]


def _parameters(action: dict[str, Any], subject: str) -> dict[str, Any]:
    """Of a button its value, of a menu the value of what was chosen."""
    value = action.get("value")
    if action.get("selected_options") is not None:
        raise Unreadable("a menu of several choices stands for no request")
    if value is None:
        value = at(action, "selected_option.value")
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            found = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            raise Unreadable("the button's value is not the JSON object it begins like") from None
        return dict(mapping(found))
    id = ident(value)
    return {f"{subject}_id": id} if id else {}


def _time(text: str) -> OwnTime:
    """Slack's timestamps are s with six decimals; they must not pass through a float."""
    seconds, _, fraction = text.partition(".")
    if not (text.isascii() and seconds.isdigit() and len(seconds) <= 11 and (fraction or "0").isdigit()):
        raise Unreadable("action_ts cannot be read as a time")
    try:
        at = from_epoch(int(seconds)).replace(microsecond=int(f"{fraction:0<6}"[:6]))
    except (OverflowError, ValueError):
        raise Unreadable("action_ts cannot be read as a time") from None
    return OwnTime(rfc3339(at), at)


def _commanded(delivery: Delivery, form: dict[str, str]) -> list[Canonical]:
    user, team = needed(ident(form.get("user_id")), "user_id"), ident(form.get("team_id")) or ""
    trigger = needed(ident(form.get("trigger_id")), "trigger_id")
    words = " ".join(f"{form['command'].removeprefix('/')} {form.get('text', '')}".split())
    told = {"slack_user_id": user, "slack_channel_id": ident(form.get("channel_id"))}
    id = derived_id(SOURCE, team, trigger)
    return [
        event(
            delivery,
            SOURCE,
            "request.made",
            id,
            None,
            key=id,
            user_id=person(SOURCE, user),
            text=needed(words[:20_000] or None, "command"),
            parameters={name: value for name, value in told.items() if value},
        )
    ]


def verify(delivery: Delivery, trust: Trust) -> None:
    signatures.versioned(delivery, trust, "X-Slack-Signature", "X-Slack-Request-Timestamp", "v0=")


def accepted(delivery: Delivery) -> Answer:
    return Answer(b"", "text/plain")


TOOL = Tool(SOURCE, verify, events, DROPPED, accepted)
