-- Accounts that became others. Their facts are the survivor's from `merged_at` on, whatever their own times.
create table qbr.merges (
    merged_account_id text primary key,
    account_id        text not null,
    merged_at         timestamptz not null,
    event_id          text not null,
    partition         int not null
);
alter table qbr.facts add column merged_at timestamptz;             -- null: the account's own
alter table qbr.usage_days add column merged_at timestamptz;

create view qbr_api.merges_v1 as select merged_account_id, account_id, merged_at from qbr.merges;
create or replace view qbr_api.facts_v1 as
    select account_id, type, subject, data, occurred_at, source, event_id, merged_at from qbr.facts;
create or replace view qbr_api.usage_days_v1 as
    select account_id, day, seq, events, packed, features, first_at, first_id, last_at, last_id, merged_at
      from qbr.usage_days;
