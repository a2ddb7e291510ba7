-- Statements that SQLite and Postgres share. `now_ms()` is the database's clock.

-- name: create_thread
insert into threads (tenant, id, created_at, metadata, expires_at)
values (:tenant, :id, :created_at, :metadata, :expires_at)
on conflict (tenant, id) do nothing
returning ordinal

-- name: lock_thread
update threads set length = length where tenant = :tenant and id = :id returning ordinal, length

-- name: lock_thread_of_run
update threads set length = length
where tenant = :tenant and id = (select thread_id from runs where tenant = :tenant and id = :id)
returning id, length

-- name: thread
select id, created_at, metadata, expires_at from threads where tenant = :tenant and id = :id

-- name: threads
select
    id, created_at, metadata, expires_at,
    coalesce(
        (
            select status from runs
            where runs.tenant = threads.tenant and runs.thread_id = threads.id and status in ('queued', 'running')
            order by status desc limit 1
        ),
        (
            select status from runs
            where runs.tenant = threads.tenant and runs.thread_id = threads.id
            order by ordinal desc limit 1
        )
    ),
    coalesce(
        (
            select runs.created_at from runs
            where runs.tenant = threads.tenant and runs.thread_id = threads.id
            order by ordinal desc limit 1
        ),
        created_at
    )
from threads
where tenant = :tenant
and not exists (select 1 from runs where runs.tenant = threads.tenant and runs.id = threads.id)
order by created_at, id

-- name: update_thread
update threads set metadata = :metadata where tenant = :tenant and id = :id returning id

-- name: lengthen_thread
update threads set length = :length where tenant = :tenant and id = :id and length < :length

-- name: delete_thread
delete from threads where tenant = :tenant and id = :id

-- name: delete_thread_runs
delete from runs where tenant = :tenant and thread_id = :id

-- name: delete_thread_events
delete from events
where tenant = :tenant and thread = (select ordinal from threads where tenant = :tenant and id = :id)

-- name: thread_end
-- Where the events of a thread end, and how many of its runs are running (0 or 1).
select coalesce(max(base + length), 0), count(*) filter (where status = 'running')
from runs
where tenant = :tenant and thread_id = :thread_id

-- name: create_run
insert into runs (
    tenant, id, thread, thread_id, agent, status, created_at, base, length, previous, checkpoints, request, expires_at,
    owner, attempt, cancel, lease_until
) values (
    :tenant, :id, :thread, :thread_id, :agent, :status, :created_at, :base, :length, :previous, :checkpoints, :request,
    :expires_at, :owner, :attempt, :cancel, now_ms() + :lease_ms
)
on conflict (tenant, id) do nothing
returning ordinal

-- name: go_on_from
update runs set previous = :previous, checkpoints = :checkpoints where tenant = :tenant and id = :id returning id

-- name: go_on_from
update runs set previous = :previous, checkpoints = :checkpoints where tenant = :tenant and id = :id returning id

-- name: may_start
select 1 from runs
where tenant = :tenant and id = :id and status = 'queued' and not exists (
    select 1 from runs as other
    where other.tenant = runs.tenant and other.thread_id = runs.thread_id
    and (
        other.status = 'running'
        or (other.status = 'queued' and other.attempt > 0 and other.ordinal < runs.ordinal)
    )
)

-- name: start_run
update runs set status = 'running', owner = :owner, base = :base, lease_until = now_ms() + :lease_ms
where tenant = :tenant and id = :id and status = 'queued' and not exists (
    select 1 from runs as other
    where other.tenant = runs.tenant and other.thread_id = runs.thread_id
    and (
        other.status = 'running'
        or (other.status = 'queued' and other.attempt > 0 and other.ordinal < runs.ordinal)
    )
)
returning {run}

-- name: run
select {run} from runs where tenant = :tenant and id = :id

-- name: runs
select {run} from runs where tenant = :tenant and thread_id = :thread_id order by ordinal

-- name: runs_of_status
select {run} from runs where tenant = :tenant and thread_id = :thread_id and status = :status order by ordinal

-- name: delete_run
delete from runs where tenant = :tenant and id = :id returning thread, thread_id, base, length

-- name: delete_run_events
delete from events
where tenant = :tenant and thread = :thread and seq >= :base and seq < :length

-- name: ask_to_cancel
update runs set
    cancel = coalesce(cancel, :reason),
    status = case status when 'queued' then 'cancelled' else status end
where tenant = :tenant and id = :id and status in ('queued', 'running')
returning status

-- name: add_event
insert into events (tenant, thread, seq, run, attempt, data, crc)
values (:tenant, :thread, :seq, :run, :attempt, :data, :crc)

-- name: lengthen_run
-- The fence: nothing happens unless the writer owns the run and knows how long its log is.
update runs set length = length + :count, status = coalesce(:status, status)
where tenant = :tenant and id = :run_id and status = 'running'
and owner = :owner and attempt = :attempt and length = :after
returning thread, base, ordinal

-- name: written
-- The events of an append that was committed before; one row without data if there were none in it.
select events.data
from runs
left join events on events.tenant = runs.tenant and events.thread = runs.thread
and events.seq >= runs.base + :after and events.seq < runs.base + runs.length
where runs.tenant = :tenant and runs.id = :run_id and runs.owner = :owner and runs.attempt = :attempt
and runs.length = :after + :count and runs.status = coalesce(:status, 'running')
order by events.seq

-- name: events
select events.seq - runs.base, events.data, events.crc
from runs
join events on events.tenant = runs.tenant and events.thread = runs.thread and events.run = runs.ordinal
where runs.tenant = :tenant and runs.id = :id
and events.seq >= runs.base + :after and events.seq < runs.base + runs.length
order by events.seq
limit :limit

-- name: abandoned
select tenant, {run} from runs
where status in ('queued', 'running') and lease_until <= now_ms()
order by lease_until
limit :limit

-- name: take_over
update runs set owner = :owner, attempt = attempt + 1, lease_until = now_ms() + :lease_ms
where tenant = :tenant and id = :id and status in ('queued', 'running')
and owner = :from_owner and attempt = :attempt and lease_until <= now_ms()
returning {run}

-- name: claim
insert into idempotency_keys (tenant, route, key, digest, run_id, expires_at, run_by)
values (:tenant, :route, :key, :digest, :run_id, :expires_at, :run_by)
on conflict (tenant, route, key) do update
set digest = excluded.digest, run_id = excluded.run_id, expires_at = excluded.expires_at, run_by = excluded.run_by
where idempotency_keys.expires_at <= :now or (
    idempotency_keys.run_by <= :now
    and not exists (
        select 1 from runs where runs.tenant = idempotency_keys.tenant and runs.id = idempotency_keys.run_id
    )
    and not exists (
        select 1 from expired_runs as expired
        where expired.tenant = idempotency_keys.tenant and expired.id = idempotency_keys.run_id
    )
)
returning run_id

-- name: claimed
select digest, run_id from idempotency_keys where tenant = :tenant and route = :route and key = :key

-- name: release
delete from idempotency_keys
where tenant = :tenant and route = :route and key = :key and run_id = :run_id

-- name: put_document
insert into documents (tenant, kind, id, value) values (:tenant, :kind, :id, :value)
on conflict (tenant, kind, id) do update set value = excluded.value
returning id

-- name: add_document
insert into documents (tenant, kind, id, value) values (:tenant, :kind, :id, :value)
on conflict (tenant, kind, id) do nothing
returning id

-- name: document
select kind, id, value from documents where tenant = :tenant and kind = :kind and id = :id

-- name: documents
select kind, id, value from documents
where tenant = :tenant and kind = :kind and substr(id, 1, length(:prefix)) = :prefix
order by ordinal

-- name: delete_document
delete from documents where tenant = :tenant and kind = :kind and id = :id returning id

-- name: over
select tenant, id, thread_id, created_at, expires_at, checkpoints from runs
where expires_at <= :now and status not in ('queued', 'running')
order by expires_at
limit :limit

-- name: refers
select 1 from runs where tenant = :tenant and checkpoints = :checkpoints and checkpoints <> '' limit 1

-- name: remember_expired
insert into expired_runs (tenant, id, until) values (:tenant, :id, :until)
on conflict (tenant, id) do update set until = excluded.until

-- name: empty_threads
select tenant, id from threads
where expires_at <= :now
and not exists (select 1 from runs where runs.tenant = threads.tenant and runs.thread_id = threads.id)
order by tenant, id
limit :limit

-- name: delete_empty_thread
delete from threads
where tenant = :tenant and id = :id
and not exists (select 1 from runs where runs.tenant = threads.tenant and runs.thread_id = threads.id)

-- name: forget_keys
delete from idempotency_keys where expires_at <= :now

-- name: forget_expired
delete from expired_runs where until <= :now

-- name: expired
select 1 from expired_runs where tenant = :tenant and id = :id
