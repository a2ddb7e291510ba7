-- name: add_events
insert into events (tenant, thread, seq, run, attempt, data, crc) values (?, ?, ?, ?, ?, ?, ?)

-- name: renew
update runs set lease_until = now_ms() + :lease_ms
where owner = :owner and status in ('queued', 'running')
returning tenant, id, cancel
