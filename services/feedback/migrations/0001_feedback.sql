-- What was said about answers: given, corrected, retracted. Append-only, so that any past time can be answered.
create table feedback.statements (
    account_id   text not null,
    answer_id    text not null,          -- the name that corrections use; absent in the event: its id
    named        boolean not null,       -- the event brought an answer_id of its own
    what         text not null check (what in ('answered', 'corrected', 'retracted')),
    user_id      text,
    kind         text check (kind in ('nps', 'csat', 'ces')),
    score        double precision,
    scale        text,                   -- as sent, else the default of the kind when it was received
    survey_id    text,
    product_area text,
    occurred_at  timestamptz not null,
    source       text not null,
    event_id     text not null,
    partition    int not null,
    primary key (account_id, answer_id, occurred_at, source, event_id)
);
create index statements_person on feedback.statements (account_id, user_id) where what = 'answered';

-- Invitations, bounces and opt-outs: facts kept for response rates and throttling.
create table feedback.invitations (
    account_id   text not null,
    what         text not null check (what in ('sent', 'bounced', 'opted_out')),
    survey_id    text,
    kind         text,
    recipient_id text,
    occurred_at  timestamptz not null,
    source       text not null,
    event_id     text not null,
    partition    int not null,
    primary key (account_id, occurred_at, source, event_id)
);

-- The voices of an account by point of the scale, latest per person: what a new answer is added to.
create table feedback.tallies (
    account_id text not null,
    kind       text not null,
    scale      text not null,
    histogram  jsonb not null,           -- point → voices
    shown      jsonb,                    -- the figure published last, with its method and direction
    revision   int not null default 0,   -- how many were published
    partition  int not null,
    primary key (account_id, kind, scale)
);

-- Accounts whose tallies are behind their statements: learnt before the clock was known.
create table feedback.accounts (
    account_id  text primary key,
    next_due_at timestamptz,
    partition   int not null
);
create index accounts_due on feedback.accounts (partition, next_due_at) where next_due_at is not null;

create table feedback.segments (
    account_id   text not null,
    segment      text,
    effective_at timestamptz not null,
    event_id     text not null,
    partition    int not null,
    primary key (account_id, effective_at, event_id)
);

create schema if not exists feedback_api;
create view feedback_api.statements_v1 as
    select account_id, answer_id, named, what, user_id, kind, score, scale, occurred_at, source, event_id
      from feedback.statements;
create view feedback_api.segments_v1 as
    select account_id, segment, effective_at, event_id from feedback.segments;
