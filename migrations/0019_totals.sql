-- How many movements are short, how many over: counted in the index alone, however long the table grows. Reads go on while it is made.
create index movements_differing on movements (arrival_at) include (departure_quantity, arrival_quantity)
    where arrival_at is not null and departure_quantity is distinct from arrival_quantity;
drop index movements_different;
alter index movements_differing rename to movements_different;
