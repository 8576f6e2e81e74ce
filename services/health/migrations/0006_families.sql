-- Accounts that have a parent or children, where the configuration says how a parent's score follows: what each brings
-- of its own, the family's score as it was told last, and what was sent up. `pending`: points by member since then.
create table health.families (
    account_id text primary key,
    partition  int not null,
    parent_id  text,                   -- to whom it was sent
    own_points double precision,
    own_band   text not null,
    own_arr    numeric,
    exact      double precision,
    told_score int,
    told_exact double precision,
    told_band  text,
    pending    jsonb not null,
    sent       text,
    turn       int not null            -- counts what it emitted: makes ids
);
create table health.children (
    parent_id text not null,
    child_id  text not null,
    partition int not null,
    points    double precision,
    band      text not null,
    arr       numeric,
    below     text[] not null,         -- everybody below the child
    primary key (parent_id, child_id)
);
create view health_api.families_v1 as
    select account_id, parent_id, exact, told_score, told_band from health.families;

-- What was told at one clock in its order.
alter table health.scores add column n bigint generated always as identity;
create or replace view health_api.scores_v1 as select * from health.scores;
