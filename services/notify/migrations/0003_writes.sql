-- Which id an account has in a tool, as was said last; empty: none any more.
create table notify.links (
    account_id  text not null,
    namespace   text not null,
    external_id text not null,
    said_at     timestamptz not null,
    partition   int not null,
    primary key (account_id, namespace)
);
create index links_external on notify.links (namespace, external_id);

-- The ledger of write-backs: a row per destination and account holds the value that is wanted there.
-- `version` counts values, `said_version` is the one that is being or was written; `alone`: a batch with it was refused.
create table notify.writes (
    destination  text not null,
    account_id   text not null,
    partition    int not null,
    score        int,
    band         text not null,
    why          text not null,
    computed_at  timestamptz not null,
    version      int not null default 1,
    said_version int,
    state        text not null default 'pending'
                 check (state in ('pending', 'sending', 'sent', 'unknown', 'failed', 'unmapped')),
    reason       text,
    alone        boolean not null default false,
    due_at       timestamptz not null,
    wanted_at    timestamptz not null default now(),
    attempts     int not null default 0,
    sent_at      timestamptz,
    primary key (destination, account_id)
);
create index writes_due on notify.writes (destination, due_at) where state in ('pending', 'sending', 'unknown');
create index writes_unmapped on notify.writes (account_id) where state = 'unmapped';

-- Given up by us: nothing is sent there until somebody says so.
alter table notify.destinations add column disabled_at timestamptz;

create view notify_api.writes_v1 as
    select destination, account_id, score, band, why, computed_at, state, reason, due_at, attempts, sent_at
      from notify.writes;
