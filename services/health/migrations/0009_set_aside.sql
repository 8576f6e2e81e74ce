-- Accounts whose time had come and that could not be looked at: tried again an hour later. Over once the account was
-- looked at since.
create table health.set_aside (
    account_id text primary key,
    partition  int not null,
    failed_at  timestamptz not null,
    failures   int not null default 1,
    reason     text not null
);
create view health_api.set_aside_v1 as
    select s.account_id, s.failed_at, s.failures, s.reason
      from health.set_aside s join health.accounts a using (account_id)
     where a.assessed_at is null or a.assessed_at < s.failed_at;
