-- Who is known at an account: for messages to them. `hashes`: the SHA-256 of their ids, as privacy.recorded names people.
create table notify.people (
    account_id text not null,
    contact_id text not null,
    partition  int not null,
    user_id    text,
    role       text,
    role_at    timestamptz,
    status     text,
    status_at  timestamptz,
    hashes     text[] not null,
    primary key (account_id, contact_id)
);
create index people_hashes on notify.people using gin (hashes);

-- Who asked not to be written to, as a SHA-256.
create table notify.hushed (
    person     text primary key,
    suppressed boolean not null,
    said_at    timestamptz not null
);

-- The ledger of messages to people at customers: one row for each that is called for. `called_at` is the event's time,
-- `created_at` that from which on it grows old: the same, until somebody says that it goes out again.
create table notify.outreach (
    delivery_id  text primary key,
    seq          bigint generated always as identity,
    destination  text not null,
    cause        text not null,
    alert_id     text,
    account_id   text not null,
    partition    int not null,
    facts        jsonb not null,
    contact_id   text,
    state        text not null default 'pending'
                 check (state in ('pending', 'sending', 'sent', 'unknown', 'failed', 'suppressed')),
    reason       text,
    called_at    timestamptz not null,
    due_at       timestamptz not null,
    created_at   timestamptz not null,
    attempts     int not null default 0,
    attempted_at timestamptz,
    sent_at      timestamptz,
    remote_id    text
);
create index outreach_due on notify.outreach (destination, seq) where state in ('pending', 'sending');
create index outreach_attempted on notify.outreach (destination, attempted_at) where attempted_at is not null;

create view notify_api.outreach_v1 as
    select delivery_id, destination, cause, alert_id, account_id, contact_id, state, reason, called_at, due_at, created_at,
           attempts, attempted_at, sent_at
      from notify.outreach;
