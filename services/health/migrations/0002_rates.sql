-- What one unit of a currency is worth in the reporting currency in a year, as events stated it; every partition
-- hears of every rate.
create table health.rates (
    partition int not null,
    currency  text not null,
    year      int not null,
    stated_at timestamptz not null,
    event_id  text not null,
    rate      numeric not null,
    primary key (partition, currency, year, stated_at, event_id)
);
create view health_api.rates_v1 as
    select distinct currency, year, stated_at, event_id, rate from health.rates;
