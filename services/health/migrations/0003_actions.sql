-- What became of an alert between its opening and its end, in the order of time: escalated, reminded,
-- acknowledged, snoozed, rated, resolved by a person. `data` has what that says besides.
create table health.alert_log (
    alert_id   text not null,
    told_at    timestamptz not null,
    cause      text not null,
    what       text not null,
    account_id text not null,
    partition  int not null,
    rule       text not null,
    data       jsonb not null,
    primary key (alert_id, told_at, cause, what)
);
create view health_api.alert_log_v1 as select * from health.alert_log;
