-- Transactional ids under which the owner, and former ones that are not fenced yet, may publish this partition's outbox.
alter table hune.partitions add column relays text[] not null default '{}';
