-- The contact vault, in the control database. A key per person, closed with the installation's key; what the person's
-- key closes; and who was deleted up to when, so that nothing of before comes back.
create table hune.people (
    person  text primary key,
    key     bytea not null,
    made_at timestamptz not null default now()
);
create table hune.contacts (
    person  text not null references hune.people on delete cascade,
    token   text not null,                     -- what references in events begin with
    kind    text not null,
    sealed  bytea not null,
    seen_at timestamptz not null,
    primary key (person, token)
);
create index contacts_token on hune.contacts (token);
create table hune.forgotten (
    who bytea primary key,                     -- SHA-256 of a person's id or of a token
    at  timestamptz not null
);
-- Whose references these are: a hash of the secret that makes them.
create table hune.vault (
    fingerprint bytea not null,
    singleton   boolean primary key default true check (singleton)
);
