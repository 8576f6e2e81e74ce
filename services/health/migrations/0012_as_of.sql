-- What was counted of a day stays beside it, so that any moment of the past is judged by the same counts: true for as long
-- as the row is there (use that comes later takes it away). `live`: of the hours, those in which something came live.
delete from health.counted;
alter table health.counted add column active int not null, add column features jsonb not null;
alter table health.heard add column live int not null default 0, add column told_live int not null default 0;
update health.heard set live = hours, told_live = told;
alter table health.part_hours add column live int not null default 0;
update health.part_hours set live = hours;
create view health_api.counted_v1 as select partition, day, active, features from health.counted;
create or replace view health_api.heard_v1 as select source, used, day, hours, live from health.heard;
create or replace view health_api.usage_v1 as
    select account_id, day, n, body, merged_at, merged_from from health.usage;
drop view health_api.breaks_v1;
