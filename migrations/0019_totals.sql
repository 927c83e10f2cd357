-- How many movements are short, how many over: counted in the index alone, however long the table grows.
drop index movements_different;
create index movements_different on movements (arrival_at) include (departure_quantity, arrival_quantity)
    where arrival_at is not null and departure_quantity is distinct from arrival_quantity;
