-- What was asked about persons: whose events are dropped from now on, and up to when what they did is forgotten.
create table router.privacy (
    user_id     text primary key,
    suppressed  boolean not null,
    erased_to   timestamptz,                    -- what happened up to then must not come back
    requests    int not null default 1,
    asked_at    timestamptz not null,           -- of the last request
    changed_at  timestamptz not null default clock_timestamp(),
    partition   int not null,
    value       bytea,                          -- the last erasing request, told once more to what was in flight
    headers     bytea
);
create index privacy_changed on router.privacy (changed_at);

create schema if not exists router_api;
create view router_api.privacy_v1 as select user_id, suppressed, erased_to, requests, asked_at from router.privacy;
