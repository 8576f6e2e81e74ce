"""AskNicely: responses. There is no event type: `count` 1 is a new response, above 1 an update of it.

| count | canonical event |
|---|---|
| 1 | survey.answered: score, comment; answer_id = question.id |
| above 1 | survey.corrected of that answer_id |

Kind and scale are `options.kind` (nps) and `options.scale` (nps: 0-10), as the payload does not tell them. The user is
`asknicely:PERSON`; the account a field of `person` that `options.account_fields` names, else found by e-mail domain.
Id: question.id and count; own time: question.responded (s, as text).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from services.gateway.canonical import Canonical
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Delivery,
    Options,
    Tool,
    Unreadable,
    account_in,
    email,
    event,
    ident,
    needed,
    number,
    object_of,
    options_of,
    person,
    when,
    whole,
)
from services.gateway.webhooks.text import plain_text

SOURCE = "asknicely"
DROPPED = (
    "person.created",
    "person.firstname",
    "person.lastname",
    "person.name",
    "person.segment",
    "question.ai_question_1",
    "question.deliverymethod",
    "question.life_cycle",
    "question.opened",
    "question.review_site",
    "question.scorecard1",
    "question.segment",
    "question.sent",
    "question.survey_template",
    "question.theme",
)


class AskNicelyOptions(Options):
    kind: Literal["nps", "csat", "ces"] = "nps"
    scale: str | None = Field(default=None, pattern=r"^\d{1,3}-\d{1,3}$")
    account_fields: tuple[str, ...] = ("account_id", "company_id")


def events(delivery: Delivery) -> list[Canonical]:
    payload = object_of(delivery.body)
    options = options_of(delivery, AskNicelyOptions)
    who, question = payload.get("person"), payload.get("question")
    count = whole(payload.get("count"))
    if not isinstance(who, dict) or not isinstance(question, dict) or count is None or count < 1:
        raise Unreadable("the payload holds no person, question and count")
    answer = needed(ident(question.get("id")), "question.id")
    own = when(question.get("responded"), "question.responded")
    told: dict[str, Any] = {
        "user_id": person(SOURCE, who.get("id")),
        "account_id": account_in(who, options.account_fields),
        "email": email(who.get("email")),
        "answer_id": answer,
        "score": number(question.get("score")),
        "comment": plain_text(question.get("comment")),
    }
    id = f"{answer}:{count}"
    if count > 1:
        return [event(delivery, SOURCE, "survey.corrected", id, own, **told)]
    needed(told["score"], "question.score")
    scale = options.scale or ("0-10" if options.kind == "nps" else None)
    return [event(delivery, SOURCE, "survey.answered", id, own, **told, kind=options.kind, scale=scale)]


TOOL = Tool(SOURCE, signatures.static_token, events, DROPPED, takes_token=True)
