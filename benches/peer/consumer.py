"""The leanest batch consumer one would write by hand: movements from Kafka into sides and sums.

Each worker is a process that decodes its next batch while PostgreSQL takes the one before, one transaction and one
statement a batch. It keeps no ledger, no version, no positions in the database, no dead letters and no conflicts; what
it shares with Stockyard is that a side counts once. Prints the seconds from the first message to the last commit.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor

import orjson
import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

BATCH_EVENTS = 5_000

TABLES = """
create table peer_sides (
    movement_id uuid not null, product_id uuid not null, side "char" not null,
    warehouse_id uuid not null, quantity bigint not null, at timestamptz not null,
    primary key (movement_id, product_id, side)
);
create table peer_levels (
    warehouse_id uuid not null, product_id uuid not null, on_hand bigint not null,
    primary key (warehouse_id, product_id)
) with (fillfactor = 75)
"""

# Ordered, so that two workers do not lock the same levels crosswise.
TAKE = """
with new as (
    insert into peer_sides (movement_id, product_id, side, warehouse_id, quantity, at)
    select * from unnest(%s::uuid[], %s::uuid[], %s::"char"[], %s::uuid[], %s::bigint[], %s::timestamptz[])
    on conflict do nothing
    returning warehouse_id, product_id, case side when 'd' then -quantity else quantity end as delta
)
insert into peer_levels as l (warehouse_id, product_id, on_hand)
select warehouse_id, product_id, sum(delta) from new group by 1, 2 order by 1, 2
on conflict (warehouse_id, product_id) do update set on_hand = l.on_hand + excluded.on_hand
"""


def arrays(messages):
    """The batch as six arrays in PostgreSQL's text form, which costs less here than adapting lists."""
    movements, products, sides, warehouses, quantities, times = [], [], [], [], [], []
    for message in messages:
        data = orjson.loads(message.value())["data"]
        movements.append(data["movement_id"])
        products.append(data["product_id"])
        sides.append("d" if data["event"] == "departure" else "a")
        warehouses.append(data["warehouse_id"])
        quantities.append(str(data["quantity"]))
        times.append(data["timestamp"])
    columns = (movements, products, sides, warehouses, quantities, times)
    return ["{" + ",".join(column) + "}" for column in columns]


def work(options, worker, share, seconds):
    consumer = Consumer({"bootstrap.servers": options.kafka, "group.id": "peer", "enable.auto.commit": False})
    mine = [p for p in range(options.partitions) if p % options.workers == worker]
    consumer.assign([TopicPartition(options.topic, p, OFFSET_BEGINNING) for p in mine])
    database = psycopg.connect(options.database)

    def take(batch):
        database.execute(TAKE, batch)
        database.commit()

    began = None
    under_way = None
    with ThreadPoolExecutor(1) as writer:
        while share.value < options.expect:
            messages = consumer.consume(BATCH_EVENTS, 0.05)
            if messages:
                began = began or time.monotonic()
                batch = arrays(messages)
                if under_way:
                    under_way.result()
                under_way = writer.submit(take, batch)
                with share.get_lock():
                    share.value += len(messages)
        if under_way:
            under_way.result()
    seconds.put((began, time.monotonic()))


def main():
    parser = argparse.ArgumentParser()
    for name in ("kafka", "topic", "database"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("workers", "partitions", "expect"):
        parser.add_argument(f"--{name}", required=True, type=int)
    options = parser.parse_args()
    with psycopg.connect(options.database) as database:
        database.execute(TABLES)
    share = multiprocessing.Value("q", 0)
    seconds = multiprocessing.Queue()
    workers = [
        multiprocessing.Process(target=work, args=(options, worker, share, seconds)) for worker in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    times = [seconds.get() for _ in workers]
    for worker in workers:
        worker.join()
    print(max(end for _, end in times) - min(began for began, _ in times if began))


main()
