//! Products as the orders API lists them: those with a sku that are not archived, with a number, a price, and what is available.

use uuid::Uuid;

use super::{
    AsOf, Store, StoreError,
    catalogue::{CatalogueChange, product},
    writer::{WriteTx, commit_point},
};
use crate::domain::{
    CommitPoint, Product, ProductId,
    catalogue::{Code, Name},
    price::Price,
};

/// A product to be created.
#[derive(Clone, Debug)]
pub struct NewProduct {
    pub product: Product,
    pub price: Price,
}

/// A product of the list.
#[derive(Clone, Debug)]
pub struct Listing {
    pub number: i64,
    pub product: Product,
    pub price: Price,
    /// Units available in all warehouses.
    pub stock: i64,
}

/// How many products were listed as of a commit.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub as_of: CommitPoint,
    pub total: i64,
}

/// Commits that are looked through for what changed the catalogue; beyond them it is counted anew.
const COUNTED_COMMITS_MAX: i64 = 1_000;

/// What became of a product that was to be changed.
#[derive(Clone, Debug)]
pub enum Changed {
    Done(CatalogueChange),
    NotThere,
    /// It still has stock, so it cannot be archived.
    HasStock,
}

impl WriteTx<'_> {
    /// Creates a product; its number, or `None` if another has its sku.
    pub async fn create_product(&mut self, new: &NewProduct) -> Result<Option<i64>, StoreError> {
        let batch = self.batch().0;
        let number = sqlx::query_scalar!(
            "with made as (
                insert into products (product_id, sku, name, price) values ($2, $3, $4, $5::text::numeric)
                on conflict do nothing
                returning number
            ), told as (
                insert into catalogue_changes (batch, product_id, code, name) select $1, $2, $3, $4 from made
            )
            select number as \"number!\" from made",
            batch,
            new.product.id.uuid(),
            new.product.sku.as_ref().map(Code::as_str),
            new.product.name.as_ref().map(Name::as_str),
            new.price.to_string()
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        Ok(number)
    }

    /// Changes sku, name and price of a listed product. A sku that another one has is refused data.
    pub async fn change_listing(
        &mut self,
        number: i64,
        sku: &Code,
        name: Option<&Name>,
        price: Price,
    ) -> Result<Changed, StoreError> {
        let batch = self.batch().0;
        let row = sqlx::query!(
            "with changed as (
                update products set sku = $3, name = $4, price = $5::text::numeric
                where number = $2 and sku is not null and archived_at is null
                returning product_id, sku, name, min_stock, reorder_point
            ), told as (
                insert into catalogue_changes (batch, product_id, code, name, min_stock, reorder_point)
                select $1, product_id, sku, name, min_stock, reorder_point from changed
            )
            select product_id, sku, name, min_stock, reorder_point from changed",
            batch,
            number,
            sku.as_str(),
            name.map(Name::as_str),
            price.to_string()
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        let Some(row) = row else {
            return Ok(Changed::NotThere);
        };
        let (sku, name) = (row.sku.as_deref(), row.name.as_deref());
        let changed = product(row.product_id, sku, name, row.min_stock, row.reorder_point);
        let changed = changed.ok_or(StoreError::Inconsistent("a product's id"))?;
        Ok(Changed::Done(CatalogueChange::Product(changed)))
    }

    /// Archives a listed product of which nothing is anywhere. Its levels are locked first, so nothing comes meanwhile, and who makes
    /// one holds the product.
    pub async fn archive_listing(&mut self, number: i64) -> Result<Changed, StoreError> {
        sqlx::query!(
            "select from products p join stock_levels l on l.product_id = p.product_id
            where p.number = $1
            order by l.warehouse_id, l.product_id
            for update of l",
            number
        )
        .execute(self.connection())
        .await?;
        let batch = self.batch().0;
        let row = sqlx::query!(
            "with archived as (
                update products set archived_at = now()
                where number = $2 and sku is not null and archived_at is null
                returning product_id, sku, name, min_stock, reorder_point
            ), told as (
                insert into catalogue_changes (batch, product_id, code, name, min_stock, reorder_point, is_archived)
                select $1, product_id, sku, name, min_stock, reorder_point, true from archived
            )
            select product_id, sku, name, min_stock, reorder_point from archived",
            batch,
            number
        )
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else {
            return Ok(Changed::NotThere);
        };
        // A statement of its own: it sees what was committed while the one before waited for the product.
        let has_stock = sqlx::query_scalar!(
            r#"select exists (
                select from stock_levels where product_id = $1 and (on_hand <> 0 or reserved <> 0)
            ) as "has_stock!""#,
            row.product_id
        )
        .fetch_one(self.connection())
        .await?;
        if has_stock {
            return Ok(Changed::HasStock);
        }
        let (sku, name) = (row.sku.as_deref(), row.name.as_deref());
        let archived = product(row.product_id, sku, name, row.min_stock, row.reorder_point);
        let archived = archived.ok_or(StoreError::Inconsistent("a product's id"))?;
        Ok(Changed::Done(CatalogueChange::Archived(archived)))
    }
}

/// A row of the list beside the newest commit; without a number where there is none.
struct ListingRow {
    version: i64,
    tag: i32,
    total: Option<i64>,
    number: Option<i64>,
    product_id: Option<Uuid>,
    sku: Option<String>,
    name: Option<String>,
    min_stock: Option<i64>,
    reorder_point: Option<i64>,
    price: Option<String>,
    stock: Option<i64>,
}

impl ListingRow {
    fn listing(&self) -> Option<Listing> {
        Some(Listing {
            number: self.number?,
            product: product(
                self.product_id?,
                self.sku.as_deref(),
                self.name.as_deref(),
                self.min_stock,
                self.reorder_point,
            )?,
            price: Price::parse(self.price.as_deref().unwrap_or("0")).unwrap_or_default(),
            stock: self.stock?,
        })
    }
}

/// Listed products beside the newest commit. Which they are and how they are counted is written into the statement, as of orders.
macro_rules! read_listings {
    ($total:tt, $products:tt, $($argument:expr),+) => {
        sqlx::query_as!(
            ListingRow,
            r#"select c.version, c.tag, c.total, p.number as "number?", p.product_id as "product_id?", p.sku, p.name,
                p.min_stock, p.reorder_point, p.price::text as price, s.stock
            from (select version, tag, "# + $total + r#" as total from stock_commits c order by version desc limit 1) c
            left join lateral (
                select * from products where sku is not null and archived_at is null "# + $products + r#"
            ) p on true
            left join lateral (
                select least(coalesce(sum(greatest(on_hand - reserved
                    + case when reserved > 0 then (select units from stock_due_units(inventory_id)) else 0 end, 0)), 0), 9223372036854775807)::bigint as stock
                from stock_levels where product_id = p.product_id
            ) s on true
            order by p.number"#,
            $($argument),+
        )
    };
}

impl Store {
    /// A page of the list: so many products after the first so many, by number; and how many there are in all. If that is `known` as
    /// of a commit not long ago, those that have come and gone since are added to it: a page takes less time than counting a catalogue.
    pub async fn listings(
        &self,
        offset: i64,
        limit: i64,
        known: Option<Counted>,
    ) -> Result<AsOf<(Vec<Listing>, i64)>, StoreError> {
        let (version, tag, total) = known.map_or((-1, 0, 0), |known| {
            let CommitPoint { version, tag } = known.as_of;
            (version.number(), tag.0.cast_signed(), known.total)
        });
        let rows = read_listings!(
            "case when c.version - $3 > $5 or not exists (select from stock_commits where version = $3 and tag = $4)
            then (select count(*) from products where sku is not null and archived_at is null)
            else $6 + (
                select coalesce(sum((p.sku is not null and p.archived_at is null)::int - coalesce(before.is_listed, false)::int), 0)
                from (
                    select distinct g.product_id from stock_commits k join catalogue_changes g on g.batch = k.batch
                    where k.version = any(array(select generate_series($3 + 1, c.version))) and g.product_id is not null
                ) changed
                join products p on p.product_id = changed.product_id
                left join lateral (
                    select g.code is not null and not g.is_archived as is_listed
                    from catalogue_changes g join stock_commits k on k.batch = g.batch
                    where coalesce(g.product_id, g.warehouse_id) = changed.product_id and k.version <= $3
                    order by k.version desc limit 1
                ) before on true
            ) end",
            "order by number offset $1 limit $2",
            offset,
            limit,
            version,
            tag,
            COUNTED_COMMITS_MAX,
            total
        );
        let rows = rows.fetch_all(&self.reads).await?;
        let total = rows.first().and_then(|row| row.total);
        let read = read(&rows)?;
        let total = total.ok_or(StoreError::Inconsistent("how many products are listed"))?;
        Ok(read.map(|listings| (listings, total)))
    }

    /// The product with this number, as it is listed.
    pub async fn listing(&self, number: i64) -> Result<AsOf<Option<Listing>>, StoreError> {
        let rows = read_listings!("null::bigint", "and number = $1", number);
        let read = read(&rows.fetch_all(&self.reads).await?)?;
        Ok(read.map(|listings| listings.into_iter().next()))
    }

    /// The product with this number in the list.
    pub async fn listed_product(&self, number: i64) -> Result<Option<ProductId>, StoreError> {
        let id = sqlx::query_scalar!(
            "select product_id from products where number = $1 and sku is not null and archived_at is null",
            number
        )
        .fetch_optional(&self.reads)
        .await?;
        Ok(id.and_then(ProductId::new))
    }
}

fn read(rows: &[ListingRow]) -> Result<AsOf<Vec<Listing>>, StoreError> {
    let newest = rows.first().ok_or(StoreError::NO_COMMITS)?;
    Ok(AsOf {
        as_of: commit_point(newest.version, newest.tag)?,
        value: rows.iter().filter_map(ListingRow::listing).collect(),
    })
}
