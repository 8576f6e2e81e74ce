-- Every account that was ever named.
create table router.accounts (
    account_id text primary key,
    name       text,
    changed_at timestamptz not null default clock_timestamp()
);
create index accounts_changed on router.accounts (changed_at);

-- Which user belongs to which account, from when on, until when.
create table router.memberships (
    user_id     text not null,
    account_id  text not null,
    valid_from  timestamptz not null,
    valid_to    timestamptz,
    asserted_at timestamptz not null default clock_timestamp(),
    primary key (user_id, account_id)
);
create index memberships_asserted on router.memberships (asserted_at);

-- Which external id (a help desk's organisation, a CRM's company, an e-mail domain) is which account, from when on.
create table router.links (
    namespace   text not null,
    external_id text not null,
    valid_from  timestamptz not null,
    account_id  text not null,
    asserted_at timestamptz not null default clock_timestamp(),
    primary key (namespace, external_id, valid_from)
);
create index links_asserted on router.links (asserted_at);

-- The account that a link chose for an event is decided once: a repeat goes the same way.
create table router.choices (
    event_hash bigint primary key,
    account_id text not null
);

-- Events that wait for their account, whole, in their order.
create table router.parked (
    partition     int not null,
    seq           bigint generated always as identity,
    entity        text not null,
    topic         text not null,
    record_offset bigint not null,
    value         bytea not null,
    headers       bytea not null,
    broker_time   timestamptz not null,
    reason        text not null,
    waits_for     text[] not null,            -- 'user:u1', 'zendesk:42': any of them
    parked_at     timestamptz not null default clock_timestamp(),
    primary key (partition, entity, seq)
);
