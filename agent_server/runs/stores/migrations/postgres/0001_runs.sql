-- Threads, their runs, the runs' events; idempotency keys; the ids of runs that expired.

create table threads (
    ordinal bigint generated always as identity,
    tenant text not null,
    id text not null,
    created_at bigint not null,
    metadata bytea not null,
    expires_at bigint,
    length bigint not null default 0,  -- events of runs that are deleted count: a number is never used twice
    primary key (tenant, id)
);

create index threads_expires_at on threads (expires_at) where expires_at is not null;

create table runs (
    ordinal bigint generated always as identity,  -- the order in which they came
    tenant text not null,
    id text not null,
    thread bigint not null,  -- its ordinal: shorter than its id, and in each of its events
    thread_id text not null,
    agent text not null,
    status text not null
        check (status in ('queued', 'running', 'completed', 'interrupted', 'failed', 'cancelled')),
    created_at bigint not null,
    base bigint not null,
    length bigint not null default 0,
    previous text not null,
    checkpoints text not null,
    expires_at bigint,
    owner text not null,
    attempt bigint not null,
    lease_until bigint not null,
    cancel text,
    request bytea not null,
    primary key (tenant, id),
    foreign key (tenant, thread_id) references threads (tenant, id)
);

create unique index runs_one_running on runs (tenant, thread_id) where status = 'running';
create index runs_thread on runs (tenant, thread_id, ordinal);
create index runs_active on runs (owner) where status in ('queued', 'running');
create index runs_checkpoints on runs (tenant, checkpoints) where checkpoints <> '';
create index runs_expires_at on runs (expires_at) where expires_at is not null;

create table events (
    tenant text not null,
    thread bigint not null,  -- ordinals: the ids would be most of what is written
    seq bigint not null,
    run bigint not null,
    attempt bigint not null,
    crc bigint not null,  -- CRC-32 of data
    data bytea not null,
    primary key (tenant, thread, seq)
);

create table idempotency_keys (
    tenant text not null,
    route text not null,
    key text not null,
    digest text not null,
    run_id text not null,
    expires_at bigint not null,
    run_by bigint,  -- from then on the key is free unless there is such a run
    primary key (tenant, route, key)
);

create index idempotency_keys_expires_at on idempotency_keys (expires_at);

create table expired_runs (
    tenant text not null,
    id text not null,
    until bigint not null,
    primary key (tenant, id)
);

create index expired_runs_until on expired_runs (until);

-- The clock that leases are measured by, in Unix milliseconds.
create function now_ms() returns bigint language sql volatile
as 'select (extract(epoch from clock_timestamp()) * 1000)::bigint';
