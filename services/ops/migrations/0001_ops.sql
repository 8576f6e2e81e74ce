-- What was said of revenue. `home`: the account is of this partition; else it is below a parent that is.
create table ops.revenue (
    partition     int not null,
    account_id    text not null,
    kind          text not null check (kind in ('contract', 'subscription', 'account')),
    ref           text not null,
    occurred_at   timestamptz not null,
    event_id      text not null,
    states_amount boolean not null,
    amount        numeric,               -- per year
    currency      text,
    starts_on     date,
    ends_on       date,
    auto_renew    boolean,
    home          boolean not null,
    primary key (partition, account_id, kind, ref, occurred_at, event_id)
);

-- Parents, of all accounts in every partition: a group's members may live anywhere.
create table ops.parents (
    partition   int not null,
    account_id  text not null,
    parent_id   text,
    occurred_at timestamptz not null,
    event_id    text not null,
    primary key (partition, account_id, occurred_at, event_id)
);
create index parents_below on ops.parents (partition, parent_id) where parent_id is not null;

create table ops.rates (
    partition   int not null,
    currency    text not null,
    year        int not null,
    rate        numeric not null,
    occurred_at timestamptz not null,
    event_id    text not null,
    primary key (partition, currency, year, occurred_at, event_id)
);

create table ops.assignments (
    account_id  text not null,
    role        text not null,
    person_id   text,
    occurred_at timestamptz not null,
    event_id    text not null,
    partition   int not null,
    primary key (account_id, role, occurred_at, event_id)
);

create table ops.touches (
    account_id  text not null,
    kind        text not null check (kind in ('touchpoint', 'meeting', 'call', 'sent', 'received')),
    ref         text not null,
    occurred_at timestamptz not null,
    event_id    text not null,
    channel     text not null,
    person_id   text,
    contact_id  text,
    partition   int not null,
    primary key (account_id, occurred_at, event_id)
);
create index touches_direct on ops.touches (account_id, occurred_at) where kind in ('touchpoint', 'meeting', 'call');

-- Language and product of an account: what a pool must know.
create table ops.traits (
    account_id  text not null,
    name        text not null check (name in ('language', 'product')),
    value       text,
    occurred_at timestamptz not null,
    event_id    text not null,
    partition   int not null,
    primary key (account_id, name, occurred_at, event_id)
);

create table ops.accounts (
    account_id  text primary key,
    partition   int not null,
    next_due_at timestamptz,
    root_id     text,                            -- to which the revenue was told last
    members     jsonb not null default '[]',     -- to whom the tier was told last
    reminded_on date,                            -- the due day that touchpoint.due named last
    emitted     int not null default 0
);
create index accounts_due on ops.accounts (partition, next_due_at) where next_due_at is not null;

-- Every decision as it was made; the greatest revision stands.
create table ops.decisions (
    account_id   text not null,
    revision     int not null,
    tier         text not null,
    coverage     text not null,
    arr          numeric,
    reason       text not null,
    effective_on date not null,
    period       date not null,
    cut_at       timestamptz not null,
    decided_at   timestamptz not null,
    kind         text not null,
    root_id      text not null,
    partition    int not null,
    primary key (account_id, revision)
);

create schema if not exists ops_api;
create view ops_api.revenue_v1 as
    select account_id, kind, ref, occurred_at, event_id, states_amount, amount, currency, starts_on, ends_on, auto_renew
      from ops.revenue where home;
create view ops_api.parents_v1 as
    select distinct account_id, parent_id, occurred_at, event_id from ops.parents;
create view ops_api.rates_v1 as
    select distinct currency, year, rate, occurred_at, event_id from ops.rates;
create view ops_api.assignments_v1 as
    select account_id, role, person_id, occurred_at, event_id from ops.assignments;
create view ops_api.touches_v1 as
    select account_id, kind, ref, occurred_at, event_id, channel, person_id, contact_id from ops.touches;
create view ops_api.decisions_v1 as
    select account_id, revision, tier, coverage, arr, reason, effective_on, period, cut_at, decided_at, kind, root_id
      from ops.decisions;
create view ops_api.accounts_v1 as select account_id from ops.accounts;
