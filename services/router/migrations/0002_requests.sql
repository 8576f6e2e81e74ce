-- What a request was decided to be, once: a repeat goes the same way, or nowhere if it was answered here (no demand).
create table router.requests (
    event_hash bigint primary key,
    demand     text,
    account_id text,
    confidence double precision
);
