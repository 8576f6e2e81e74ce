-- What accounts are entitled to and use of it, as they were last looked at: what others are compared with.
create table health.features (
    account_id text primary key,
    partition  int not null,
    segment    text not null,          -- '': none
    band       text not null,          -- as it is shown
    entitled   text[] not null,
    used       text[] not null         -- of those
);
create index features_of on health.features (partition);

-- What each partition counted of a day, as this one heard of it.
create table health.feature_counts (
    partition    int not null,
    day          date not null,
    window_days  int not null,
    of_partition int not null,
    partitions   int not null,
    segments     jsonb not null,       -- segment → feature → {entitled, using}
    primary key (partition, day, window_days, of_partition)
);
-- Partitions that have something to count, or whose others have, and when they do it next.
create table health.feature_counting (
    partition   int primary key,
    next_due_at timestamptz not null,
    day         date,                  -- that was told last
    window_days int
);

-- Recommendations as they were told, and what became of them: adopted, dismissed, withdrawn.
create table health.recommendations (
    recommendation_id text primary key,
    account_id        text not null,
    partition         int not null,
    feature           text not null,
    segment           text,
    peers             int not null,
    peers_using       int not null,
    share_low         double precision not null,
    unused_days       int not null,
    why               text not null,
    next_step         text not null,
    baseline          boolean not null,
    config_hash       text not null,
    made_at           timestamptz not null,
    ended_at          timestamptz,
    became            text,
    reason            text,
    ended_by          text,
    note              text
);
create index recommendations_by_account on health.recommendations (account_id);
create view health_api.recommendations_v1 as select * from health.recommendations;
