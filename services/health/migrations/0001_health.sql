-- One row per account: what is needed for every event of use, and what was told of it (memory).
create table health.accounts (
    account_id      text primary key,
    partition       int not null,
    timezone        text not null default 'UTC',
    last_active_day date,              -- local day of the newest use at the last assessment
    next_due_at     timestamptz,       -- when time alone may change something; null: never
    pending         boolean not null default false,  -- facts came that must wake nobody, and are not assessed yet
    assessed_at     timestamptz,       -- null: never
    assessed_live   boolean not null default false,
    config_hash     text,
    memory          jsonb
) with (fillfactor = 70);
create index accounts_due on health.accounts (partition, next_due_at) where next_due_at is not null;

-- Every event of use, 32 bytes each (time, user, feature, action): one row per account, UTC day and batch,
-- one per account and day once the day has closed.
create table health.usage (
    account_id text not null,
    day        date not null,
    id         bigint generated always as identity,
    partition  int not null,
    n          int not null,
    body       bytea not null,
    primary key (account_id, day, id)
);
alter table health.usage alter body set storage external;

-- What the hashes in health.usage stand for.
create table health.words (
    hash bigint not null,
    kind text not null,                -- feature, action
    word text not null,
    primary key (kind, hash)
);
create table health.users (
    account_id text not null,
    hash       bigint not null,
    partition  int not null,
    user_id    text not null,
    primary key (account_id, hash)
);

-- Everything else that is known: the marks that events left on a thing (a ticket, an answer, an invoice, …).
create table health.things (
    account_id text not null,
    kind       text not null,
    key        text not null,
    partition  int not null,
    marks      jsonb not null,         -- [[microseconds, event id, verb, {…}], …] in the order of arrival
    until      timestamptz,            -- after this it moves no score any more; null: not known
    primary key (account_id, kind, key)
);

-- Alerts as they were told.
create table health.alerts (
    alert_id    text primary key,
    account_id  text not null,
    partition   int not null,
    rule        text not null,
    cause       text not null,
    kind        text not null,
    severity    text not null,
    title       text not null,
    why         text not null,
    next_step   text,
    evidence    jsonb not null,
    baseline    boolean not null,
    config_hash text not null,
    opened_at   timestamptz not null,
    resolved_at timestamptz
);
create index alerts_by_account on health.alerts (account_id);

-- Scores as they were told, for the day they were told on.
create table health.scores (
    account_id  text not null,
    told_at     timestamptz not null,
    cause       text not null,
    partition   int not null,
    score       int,
    band        text not null,
    why         text not null,
    config_hash text not null,
    primary key (account_id, told_at, cause)
);

create schema if not exists health_api;
create view health_api.accounts_v1 as
    select account_id, partition, timezone, next_due_at, config_hash,
           (memory -> 'score' ->> 'score')::int as score, memory -> 'score' ->> 'band' as band,
           memory -> 'state' ->> 'name' as name, memory -> 'state' ->> 'segment' as segment,
           memory -> 'state' ->> 'stage' as stage, memory -> 'state' ->> 'owner' as owner,
           (memory -> 'state' ->> 'arr')::numeric as arr, (memory -> 'state' ->> 'notice_on')::date as notice_on
      from health.accounts;
create view health_api.alerts_v1 as select * from health.alerts;
create view health_api.scores_v1 as select * from health.scores;
create view health_api.things_v1 as select account_id, kind, key, marks from health.things;
create view health_api.usage_v1 as select account_id, day, n, body from health.usage;
create view health_api.users_v1 as select account_id, hash, user_id from health.users;
create view health_api.words_v1 as select kind, hash, word from health.words;
