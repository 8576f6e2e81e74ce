-- Accounts that became others. Their contacts, owners and traits are the survivor's from `merged_at` on; their revenue
-- stays where it was stated, and the account becomes a child of the survivor.
create table ops.merges (
    merged_account_id text primary key,
    account_id        text not null,
    merged_at         timestamptz not null,
    event_id          text not null,
    partition         int not null
);
alter table ops.assignments add column merged_at timestamptz;       -- null: the account's own
alter table ops.touches add column merged_at timestamptz;
alter table ops.traits add column merged_at timestamptz;

create view ops_api.merges_v1 as select merged_account_id, account_id, merged_at from ops.merges;
create or replace view ops_api.assignments_v1 as
    select account_id, role, person_id, occurred_at, event_id, merged_at from ops.assignments;
create or replace view ops_api.touches_v1 as
    select account_id, kind, ref, occurred_at, event_id, channel, person_id, contact_id, merged_at from ops.touches;
