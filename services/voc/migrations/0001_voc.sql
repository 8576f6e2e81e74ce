-- What was said about comments: said, corrected, retracted. Append-only, so that any past time can be answered.
create table voc.statements (
    account_id     text not null,
    item_id        text not null,
    what           text not null check (what in ('said', 'corrected', 'retracted')),
    occurred_at    timestamptz not null,
    origin         text not null,          -- the event's source
    event_id       text not null,
    source         text not null,          -- survey, ticket, call, csm, feedback, request, message, meeting, churn
    words          text,                   -- null once a person's data were erased, or nothing was said
    title          text,
    wish           text,                   -- key of a feature request
    user_id        text,
    product_area   text,
    severity       text,                   -- as given
    survey         text check (survey in ('nps', 'csat', 'ces')),
    score          double precision,
    scale          text,
    given_language text,
    reading        jsonb,                  -- what the rules made of the words
    rule           text,                   -- the version of those rules; null: nothing to read
    partition      int not null,
    primary key (account_id, item_id, occurred_at, origin, event_id)
);
create index statements_rule on voc.statements (partition, rule, account_id, item_id) where rule is not null and words is not null;
create index statements_wish on voc.statements (account_id, wish) where wish is not null;
create index statements_user on voc.statements (account_id, user_id) where user_id is not null;

-- A person's labels: decisions, never overwritten by a rule.
create table voc.relabels (
    account_id text not null,
    item_id    text not null,
    request_id text not null,
    decided_at timestamptz not null,
    themes     text[] not null,
    by         text,
    partition  int not null,
    primary key (account_id, item_id, request_id)
);

-- Yearly revenue by holding: the account as stated, or one subscription (MRR x 12).
create table voc.worths (
    account_id  text not null,
    holding     text not null,
    occurred_at timestamptz not null,
    event_id    text not null,
    amount      numeric,                   -- null: cleared
    currency    text,
    partition   int not null,
    primary key (account_id, holding, occurred_at, event_id)
);

create table voc.rates (
    currency    text not null,
    year        int not null,
    occurred_at timestamptz not null,
    event_id    text not null,
    rate        numeric not null,
    partition   int not null,
    primary key (currency, year, occurred_at, event_id)
);

create table voc.merges (
    merged_account_id text not null,
    account_id        text not null,
    occurred_at       timestamptz not null,
    event_id          text not null,
    partition         int not null,
    primary key (merged_account_id, account_id, occurred_at, event_id)
);

-- Persons whose words must not be kept, those that arrive later included.
create table voc.erased (
    account_id  text not null,
    user_id     text not null,
    occurred_at timestamptz not null,
    partition   int not null,
    primary key (account_id, user_id)
);

create schema if not exists voc_api;
create view voc_api.statements_v1 as
    select account_id, item_id, what, occurred_at, origin, event_id, source, words, title, wish, user_id, product_area,
           severity, survey, score, scale, given_language, reading, rule
      from voc.statements;
create view voc_api.relabels_v1 as select account_id, item_id, request_id, decided_at, themes, by from voc.relabels;
create view voc_api.worths_v1 as select account_id, holding, occurred_at, event_id, amount, currency from voc.worths;
create view voc_api.rates_v1 as select currency, year, occurred_at, event_id, rate from voc.rates;
create view voc_api.merges_v1 as select merged_account_id, account_id, occurred_at, event_id from voc.merges;
