-- The tier that ops decided last, and when; it stands in states and alerts, never in a score.
alter table health.accounts add column tier text, add column tier_at timestamptz;
