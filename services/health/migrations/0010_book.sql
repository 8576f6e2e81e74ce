-- What is counted over the whole book: each partition counts its accounts and tells the partition of the book, which
-- sums, decides where data broke on the way, and tells every partition.
create table health.heard (            -- in which hours (bits) of a UTC day a source sent live; `told` of them already
    partition int not null,
    source    text not null,
    used      boolean not null,
    day       date not null,
    hours     int not null,
    told      int not null default 0,
    primary key (partition, source, used, day)
);
create table health.counted (          -- days that are counted, and no use of theirs came since
    partition int not null,
    day       date not null,
    primary key (partition, day)
);
create table health.counts_told (partition int primary key, until timestamptz not null);
create index accounts_of on health.accounts (partition);

-- The book's partition: what the others told, and what was decided of it.
create table health.parts (origin int primary key, partition int not null, until timestamptz not null);
create table health.part_days (
    origin    int not null,
    day       date not null,
    partition int not null,
    active    int not null,
    features  jsonb not null,
    primary key (origin, day)
);
create table health.part_hours (
    origin    int not null,
    source    text not null,
    used      boolean not null,
    day       date not null,
    partition int not null,
    hours     int not null,
    primary key (origin, source, used, day)
);
create table health.book (
    partition    int primary key,
    memory       jsonb not null,
    judged_until timestamptz not null,
    judged_live  boolean not null
);

-- What every partition was told: [{what, name, since, until}, …]
create table health.breaks (
    partition int primary key,
    told_at   timestamptz not null,
    breaks    jsonb not null
);
create view health_api.breaks_v1 as select partition, told_at, breaks from health.breaks;
create view health_api.heard_v1 as select source, used, day, hours from health.heard;
