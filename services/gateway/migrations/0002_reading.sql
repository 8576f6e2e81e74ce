-- What the command line may read.
create schema if not exists gateway_api;
create view gateway_api.requests_v1 as select id, demand, account_id, received_at from gateway.requests;
create view gateway_api.answers_v1 as
    select request_id, status, demand, account_id, confidence, as_of, reason, received_at from gateway.answers;
