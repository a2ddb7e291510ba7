-- name: add_events
insert into events (tenant, thread_id, seq, run_id, attempt, data, crc) values (?, ?, ?, ?, ?, ?, ?)

-- name: renew
update runs set lease_until = now_ms() + :lease_ms
where owner = :owner and status in ('queued', 'running')
returning tenant, id, cancel
