-- Threads, their runs, the runs' events; idempotency keys; the ids of runs that expired.

create table threads (
    ordinal integer primary key,
    tenant text not null,
    id text not null,
    created_at integer not null,
    metadata blob not null,
    expires_at integer,
    length integer not null default 0,  -- events of runs that are deleted count: a number is never used twice
    unique (tenant, id)
) strict;

create index threads_expires_at on threads (expires_at) where expires_at is not null;

create table runs (
    ordinal integer primary key,  -- the order in which they came
    tenant text not null,
    id text not null,
    thread integer not null,  -- its ordinal: shorter than its id, and in each of its events
    thread_id text not null,
    agent text not null,
    status text not null
        check (status in ('queued', 'running', 'completed', 'interrupted', 'failed', 'cancelled')),
    created_at integer not null,
    base integer not null,
    length integer not null default 0,
    previous text not null,
    checkpoints text not null,
    expires_at integer,
    owner text not null,
    attempt integer not null,
    lease_until integer not null,
    cancel text,
    request blob not null,
    unique (tenant, id),
    foreign key (tenant, thread_id) references threads (tenant, id)
) strict;

create unique index runs_one_running on runs (tenant, thread_id) where status = 'running';
create index runs_thread on runs (tenant, thread_id, ordinal);
create index runs_active on runs (owner) where status in ('queued', 'running');
create index runs_checkpoints on runs (tenant, checkpoints) where checkpoints <> '';
create index runs_expires_at on runs (expires_at) where expires_at is not null;

create table events (
    tenant text not null,
    thread integer not null,  -- ordinals: the ids would be most of what is written
    seq integer not null,
    run integer not null,
    attempt integer not null,
    crc integer not null,  -- CRC-32 of data
    data blob not null,
    primary key (tenant, thread, seq)
) without rowid, strict;

create table idempotency_keys (
    tenant text not null,
    route text not null,
    key text not null,
    digest text not null,
    run_id text not null,
    expires_at integer not null,
    run_by integer,  -- from then on the key is free unless there is such a run
    primary key (tenant, route, key)
) strict;

create index idempotency_keys_expires_at on idempotency_keys (expires_at);

create table expired_runs (
    tenant text not null,
    id text not null,
    until integer not null,
    primary key (tenant, id)
) strict;

create index expired_runs_until on expired_runs (until);
