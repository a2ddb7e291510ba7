-- JSON that protocols keep beside their runs.

create table documents (
    ordinal bigint generated always as identity,  -- the order in which they were first put
    tenant text not null,
    kind text not null,
    id text not null,
    value bytea not null,
    primary key (tenant, kind, id)
);
