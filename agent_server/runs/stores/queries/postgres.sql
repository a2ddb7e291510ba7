-- name: add_events
copy events (tenant, thread, seq, run, attempt, data, crc) from stdin (format binary)

-- name: renew
-- Locks the rows in the order in which writers of events do.
with owned as materialized (
    select tenant, id from runs
    where owner = :owner and status in ('queued', 'running')
    order by tenant collate "C", id collate "C"
    for update
)
update runs set lease_until = now_ms() + :lease_ms
from owned
where runs.tenant = owned.tenant and runs.id = owned.id
returning runs.tenant, runs.id, runs.cancel
