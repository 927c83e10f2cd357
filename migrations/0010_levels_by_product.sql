-- A product's stock in all warehouses is read by product. The column never changes, so updates stay heap-only.
create index stock_levels_by_product on stock_levels (product_id);
