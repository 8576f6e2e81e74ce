-- Which account became part of which: its ids in other tools and its people are the survivor's from then on.
create table notify.merges (
    merged_account_id text primary key,
    account_id        text not null,
    partition         int not null
);
