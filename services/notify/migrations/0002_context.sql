-- What the alert said of its account as it stood when it was told.
alter table notify.episodes add column context jsonb;
