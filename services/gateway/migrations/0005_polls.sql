-- How far each feed of a polled tool was delivered, who reads it now, and how that goes; in the control database.
create table gateway.polls (
    tool         text not null,
    feed         text not null,
    position     timestamptz,
    holder       text,
    leased_until timestamptz,
    due_at       timestamptz not null default now(),
    failures     int not null default 0,
    error        text,
    error_at     timestamptz,
    succeeded_at timestamptz,
    records      bigint not null default 0,
    unread       bigint not null default 0,
    primary key (tool, feed)
);
