-- What scores were made by, for ever: a model by the digest of the configuration that it was part of. Each partition
-- says it once, in its own database.
create table health.models (
    partition    int not null,
    config_hash  text not null,
    model_digest text not null,
    model        jsonb not null,
    since        timestamptz not null,
    primary key (partition, config_hash)
);
create view health_api.models_v1 as
    select config_hash, model_digest, model, min(since) as since from health.models group by 1, 2, 3;
