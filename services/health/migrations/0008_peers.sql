-- Distributions of measures over accounts, a day's under a model. `peer_counts`: how far a partition has counted its
-- accounts; `peer_values`: what it has read of them until it is through; `peers`: what each partition came to, as this one
-- heard of it.
create table health.peer_counts (
    partition     int not null,
    model         text not null,
    day           date not null,
    after_account text not null,
    done          boolean not null,
    primary key (partition, model, day)
);
create table health.peer_values (
    partition  int not null,
    model      text not null,
    day        date not null,
    account_id text not null,
    measure    text not null,
    segment    text not null,          -- '': among everybody
    value      double precision not null,
    primary key (partition, model, day, account_id, measure, segment)
);
create table health.peers (
    partition    int not null,
    model        text not null,
    day          date not null,
    of_partition int not null,
    partitions   int not null,
    tables       jsonb not null,       -- measure → segment → {n, values}
    primary key (partition, model, day, of_partition)
);
