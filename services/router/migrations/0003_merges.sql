-- What an account became, decided once; who inserts holds the lock of merges until it has committed, so that `seq`
-- is the order of commits.
create table router.merges (
    merged_account_id text primary key,
    account_id        text not null,
    valid_from        timestamptz not null,
    known_at          timestamptz not null,
    seq               bigint generated always as identity
);
create index merges_seq on router.merges (seq);
create index memberships_account on router.memberships (account_id);
create index links_account on router.links (account_id);

-- No account: from then on the external id means nobody.
alter table router.links alter column account_id drop not null;
