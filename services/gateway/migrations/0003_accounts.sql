-- The latest state of each account and why its score moved last, beside each partition.
create table gateway.accounts (
    account_id text primary key,
    partition  int not null,
    state      jsonb,
    change     jsonb
);
