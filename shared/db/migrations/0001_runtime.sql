-- What the runtime of every worker keeps beside the worker's own state, in the same database (schema hune).
create table hune.installation (
    id          uuid primary key,
    partitions  int not null,
    databases   int not null,
    created_at  timestamptz not null default now(),
    live_since  timestamptz,
    singleton   boolean not null default true unique check (singleton)
);

-- One lock row per (service, partition): who owns it, how far it has read and written, what time it is there.
create table hune.partitions (
    service    text not null,
    partition  int not null,
    epoch      bigint not null default 0,     -- one more at every change of owner
    version    bigint not null default 0,     -- one more with every transaction
    owner      text,
    offsets    jsonb not null default '{}',   -- topic → next offset to read
    head       bigint not null default 0,     -- seq of the newest outbox record
    published  bigint not null default 0,     -- seq known to be on Kafka (a lower bound)
    clock      timestamptz,                   -- historical time; null before the first run ended
    live       boolean not null default false,
    marks      jsonb not null default '{}',   -- run → the router partitions that have ended it
    counts     jsonb not null default '{}',   -- outcome → how many records ended so
    updated_at timestamptz not null default now(),
    primary key (service, partition)
) with (fillfactor = 50);

create table hune.outbox (
    service   text not null,
    partition int not null,
    last_seq  bigint not null,
    first_seq bigint not null,
    records   bytea not null,
    primary key (service, partition, last_seq)
);
alter table hune.outbox alter records set storage external;

create table hune.quarantine (
    id          text primary key,             -- service:topic:partition:offset
    service     text not null,
    topic       text not null,
    partition   int not null,
    record_offset bigint not null,
    key         bytea,
    value       bytea,
    headers     bytea not null,               -- msgpack list of [name, value]
    broker_time timestamptz not null,
    reason      text not null,
    error       text,
    state       text not null default 'held' check (state in ('held', 'redrive', 'applied')),
    refused_at  timestamptz not null default now(),
    attempts    int not null default 1
);
create index quarantine_state on hune.quarantine (service, partition) where state = 'redrive';

-- Ids of events already applied: packed 8-byte hashes in buckets by the event's own time. A UTC day has 25 buckets,
-- day * 25 + hour, and day * 25 + 24 for ids that came few at a time. First a row per batch and bucket …
create table hune.seen (
    service   text not null,
    partition int not null,
    bucket    int not null,
    seq       bigint not null generated always as identity,
    ids       bytea not null,
    primary key (service, partition, bucket, seq)
);
alter table hune.seen alter ids set storage external;
-- … and once the hour is over chunks of 1,024 in order, found by their lowest id (the first one by the lowest bigint).
create table hune.seen_cold (
    service   text not null,
    partition int not null,
    bucket    int not null,
    lo        bigint not null,
    ids       bytea not null,
    primary key (service, partition, bucket, lo)
);
alter table hune.seen_cold alter ids set storage external;
-- Ids of events without a time of their own or one inside the id.
create table hune.seen_undated (
    service   text not null,
    partition int not null,
    id        bigint not null,
    primary key (service, partition, id)
);
