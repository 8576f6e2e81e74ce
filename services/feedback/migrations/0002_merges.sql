-- Accounts that became others. Their facts are the survivor's from `merged_at` on, whatever their own times.
create table feedback.merges (
    merged_account_id text primary key,
    account_id        text not null,
    merged_at         timestamptz not null,
    event_id          text not null,
    partition         int not null
);
alter table feedback.statements add column merged_at timestamptz;   -- null: the account's own
alter table feedback.invitations add column merged_at timestamptz;

create view feedback_api.merges_v1 as select merged_account_id, account_id, merged_at from feedback.merges;
create or replace view feedback_api.statements_v1 as
    select account_id, answer_id, named, what, user_id, kind, score, scale, occurred_at, source, event_id, merged_at
      from feedback.statements;
