-- What results said last of an account, for the words of a message.
create table notify.accounts (
    account_id text primary key,
    partition  int not null,
    state      jsonb,
    state_at   timestamptz,
    change     jsonb,
    change_at  timestamptz,
    touch      jsonb,
    touch_at   timestamptz,
    cover      jsonb,
    cover_at   timestamptz
);

create table notify.episodes (
    alert_id        text primary key,
    account_id      text not null,
    partition       int not null,
    service         text not null,
    rule            text not null,
    kind            text not null,
    severity        text not null,
    title           text not null,
    why             text not null,
    next_step       text,
    evidence        jsonb not null,
    opened_at       timestamptz not null,
    computed_at     timestamptz not null,
    cause_ids       text[] not null,
    baseline        boolean not null,
    state           text not null check (state in ('open', 'resolved')),
    version         int not null,
    resolved_at     timestamptz,
    acknowledged_by text,
    snoozed         boolean not null,
    snoozed_until   timestamptz,
    history         jsonb not null
);
create index episodes_open on notify.episodes (account_id) where state = 'open';

-- The ledger: one row per place, episode, version and kind of message. `seq` is the order in which they became due.
create table notify.deliveries (
    delivery_id  text primary key,
    seq          bigint generated always as identity,
    destination  text not null,
    what         text not null check (what in ('open', 'update', 'thread', 'digest')),
    alert_id     text,
    account_id   text,
    version      int not null,
    said_version int,
    partition    int,
    state        text not null check (state in ('pending', 'sending', 'sent', 'unknown', 'failed', 'suppressed')),
    mode         text not null check (mode in ('single', 'daily', 'cold')),
    reason       text,
    digest_id    text,
    due_at       timestamptz not null,
    created_at   timestamptz not null default now(),
    attempts     int not null default 0,
    attempted_at timestamptz,
    sent_at      timestamptz,
    channel      text,
    ts           text,
    thread_ts    text,
    found_later  boolean not null default false,
    unique (destination, alert_id, version, what)
);
create index deliveries_unsettled on notify.deliveries (destination, seq) where state in ('pending', 'sending', 'unknown');
create index deliveries_sent on notify.deliveries (destination, sent_at) where what = 'open' and state = 'sent';
create index deliveries_alert on notify.deliveries (alert_id);
create index deliveries_digest on notify.deliveries (digest_id) where digest_id is not null;

-- A place: who speaks there now (until the lease ends; `fence` grows with every claim) and when it may be spoken to next.
create table notify.destinations (
    destination    text primary key,
    next_at        timestamptz not null default now(),
    look_at        timestamptz,
    lease_until    timestamptz,
    fence          bigint not null default 0,
    channel        text,
    last_digest_at timestamptz,
    failures       int not null default 0,
    failing_since  timestamptz,
    reason         text
);

create schema if not exists notify_api;
create view notify_api.deliveries_v1 as
    select delivery_id, destination, what, alert_id, account_id, version, state, mode, reason, digest_id, due_at,
           created_at, attempts, attempted_at, sent_at, found_later
      from notify.deliveries;
