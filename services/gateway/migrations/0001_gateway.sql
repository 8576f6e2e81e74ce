-- Keys that may use the HTTP door; the key itself is shown once and never stored.
create table gateway.keys (
    name       text primary key,
    hash       bytea not null unique,
    scopes     text[] not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);

-- Requests accepted over HTTP, in the control database: known before they reach Kafka.
create table gateway.requests (
    id          text primary key,
    fingerprint bytea not null,
    demand      text,
    account_id  text,
    received_at timestamptz not null default now(),
    produced_at timestamptz
);
create index requests_received on gateway.requests (received_at);

-- What the services answered, in the database of the partition that the answer came by; the first answer stays.
create table gateway.answers (
    request_id  text primary key,
    partition   int not null,
    status      text not null check (status in ('answered', 'declined', 'unclear')),
    demand      text,
    account_id  text,
    confidence  double precision,
    as_of       timestamptz,
    answer      jsonb,
    reason      text,
    candidates  text[],
    received_at timestamptz not null
);
create index answers_received on gateway.answers (received_at);
