-- What was said of an alert before its opening was read: the two come from different topics.
create table notify.early (
    alert_id   text not null,
    event_id   text not null,
    partition  int not null,
    said       jsonb not null,
    heard_at   timestamptz not null default now(),
    primary key (alert_id, event_id)
);

-- Every place with something to say has its row from now on.
insert into notify.destinations (destination)
select distinct destination from notify.deliveries where state in ('pending', 'sending', 'unknown')
    on conflict do nothing;
