-- How far each partition of a topic has been taken, written in the transaction that takes it: the position and the
-- effect go forward, and after a restore back, together.

create table ingest_progress (
    topic text not null,
    partition integer not null,
    next_offset bigint not null constraint an_offset_is_not_negative check (next_offset >= 0),
    primary key (topic, partition)
);
