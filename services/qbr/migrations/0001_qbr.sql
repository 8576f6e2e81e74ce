-- Usage: per account, UTC day and batch one row; each event 16 bytes (time of day, feature; hash of the user).
create table qbr.usage_days (
    account_id text not null,
    day        date not null,
    seq        bigint not null,          -- the transaction that wrote it
    events     int not null,
    packed     bytea not null,
    features   text[] not null,          -- what the numbers in `packed` mean
    first_at   timestamptz not null,
    first_id   text not null,
    last_at    timestamptz not null,
    last_id    text not null,
    partition  int not null,
    primary key (account_id, day, partition, seq)
);
alter table qbr.usage_days alter packed set storage external;

-- Everything else that happened, with its own time: the pack is a fold over these.
create table qbr.facts (
    account_id  text not null,
    type        text not null,
    subject     text not null,           -- ticket, meeting, answer ...: what the fact is about
    data        jsonb not null,
    occurred_at timestamptz not null,
    source      text not null,
    event_id    text not null,
    partition   int not null,
    primary key (account_id, occurred_at, source, event_id)
);
create index facts_meetings on qbr.facts (account_id) where type like 'meeting.%';

create table qbr.segments (
    account_id   text not null,
    segment      text,
    effective_at timestamptz not null,
    event_id     text not null,
    partition    int not null,
    primary key (account_id, effective_at, event_id)
);

create table qbr.accounts (
    account_id  text primary key,
    next_due_at timestamptz,
    partition   int not null
);
create index accounts_due on qbr.accounts (partition, next_due_at) where next_due_at is not null;

create table qbr.reviews (
    review_id        text primary key,
    account_id       text not null,
    kind             text not null,
    period           text not null,
    starts_at        timestamptz not null,
    ends_at          timestamptz not null,
    due_at           timestamptz not null,
    status           text not null check (status in ('scheduled', 'prepared', 'held', 'missed')),
    planned          boolean not null,
    scheduled_for    timestamptz,
    meeting_id       text,
    held_at          timestamptz,
    prepared_at      timestamptz,
    sponsor_attended boolean,
    rescheduled      int not null,
    no_shows         int not null,
    decisions        int not null,       -- how many were recorded: the newest in the log
    partition        int not null
);
create index reviews_account on qbr.reviews (account_id);

-- Every decision as it was made, with the review as it stood after it.
create table qbr.review_log (
    review_id  text not null,
    n          int not null,
    account_id text not null,
    what       text not null,
    decided_at timestamptz not null,
    review     jsonb not null,
    partition  int not null,
    primary key (review_id, n)
);

create schema if not exists qbr_api;
create view qbr_api.review_log_v1 as
    select review_id, n, account_id, what, decided_at, review from qbr.review_log;
create view qbr_api.segments_v1 as
    select account_id, segment, effective_at, event_id from qbr.segments;
create view qbr_api.facts_v1 as
    select account_id, type, subject, data, occurred_at, source, event_id from qbr.facts;
create view qbr_api.usage_days_v1 as
    select account_id, day, seq, events, packed, features, first_at, first_id, last_at, last_id from qbr.usage_days;
