-- Persons whose events are not taken, by the SHA-256 of their id, beside each partition.
create table gateway.gone (
    person     bytea primary key,
    partition  int not null,
    suppressed boolean not null
);
