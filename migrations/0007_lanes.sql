-- A lane takes the messages of some products, whatever the partition: two lanes then never wait for each other's rows. How far
-- a partition was taken is therefore known by lane, and the smallest counts.

alter table ingest_progress add column lane smallint not null default 0
    constraint a_lane_is_not_negative check (lane >= 0);
alter table ingest_progress drop constraint ingest_progress_pkey, add primary key (topic, partition, lane);
alter table ingest_progress alter column lane drop default;

-- A lane that is no more leaves no position behind.
grant delete on ingest_progress to stockyard_app;
