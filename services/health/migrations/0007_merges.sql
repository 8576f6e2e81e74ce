-- Accounts that became others. Their facts are the survivor's from `merged_at` on, whatever their own times; `merged_from`
-- says whose they were.
create table health.merges (
    merged_account_id text primary key,
    account_id        text not null,
    merged_at         timestamptz not null,
    event_id          text not null,
    partition         int not null
);
alter table health.usage add column merged_from text not null default '', add column merged_at timestamptz;
alter table health.users add column merged_at timestamptz;
alter table health.things add column merged_from text not null default '', add column merged_at timestamptz;
alter table health.things drop constraint things_pkey, add primary key (account_id, kind, key, merged_from);

create view health_api.merges_v1 as select merged_account_id, account_id, merged_at from health.merges;
create or replace view health_api.things_v1 as select account_id, kind, key, marks, merged_at from health.things;
create or replace view health_api.usage_v1 as select account_id, day, n, body, merged_at from health.usage;
create or replace view health_api.users_v1 as select account_id, hash, user_id, merged_at from health.users;
