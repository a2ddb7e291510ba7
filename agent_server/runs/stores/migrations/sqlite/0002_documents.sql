-- JSON that protocols keep beside their runs.

create table documents (
    ordinal integer primary key,  -- the order in which they were first put
    tenant text not null,
    kind text not null,
    id text not null,
    value blob not null,
    unique (tenant, kind, id)
) strict;
