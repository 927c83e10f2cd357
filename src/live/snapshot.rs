//! What stands where, at one commit, in as many frames as it takes. Written once for all clients that ask for the same.

use std::fmt::Write;

use bytes::Bytes;

use super::{filter::Filter, product::ProductDocument};
use crate::domain::{CommitPoint, stock::ProductStock};

/// The frames of a snapshot, in order. There is at least one, and the last carries the cursor.
#[derive(Debug)]
pub struct Snapshot {
    pub as_of: CommitPoint,
    pub parts: Vec<Bytes>,
}

impl Snapshot {
    /// Writes the products, `part_bytes_max` to a frame, or one product where that is more.
    pub fn write(
        as_of: CommitPoint,
        products: &[ProductStock],
        filter: &Filter,
        part_bytes_max: usize,
    ) -> Self {
        let mut lists = vec![String::new()];
        for product in products {
            let document = ProductDocument::new(product, filter);
            let is_alert = document.reorder_needed && filter.has_total(product.product.id);
            if document.levels.is_empty() && !is_alert {
                continue;
            }
            // Text and numbers: nothing that JSON cannot hold.
            let document = serde_json::to_string(&document).unwrap_or_default();
            let is_full = lists.last().is_some_and(|list| {
                !list.is_empty() && list.len() + document.len() > part_bytes_max
            });
            if is_full {
                lists.push(String::new());
            }
            if let Some(list) = lists.last_mut() {
                if !list.is_empty() {
                    list.push(',');
                }
                list.push_str(&document);
            }
        }
        let parts = lists.len();
        let frames = lists.into_iter().enumerate().map(|(n, list)| {
            let mut frame = format!(r#"{{"type":"snapshot","version":{}"#, as_of.version);
            let part = n + 1;
            // Writing to a string cannot fail.
            if part == parts {
                let _ = write!(frame, r#","cursor":"{as_of}""#);
            }
            if parts > 1 {
                let _ = write!(frame, r#","part":{part},"parts":{parts}"#);
            }
            let _ = write!(frame, r#","data":[{list}]}}"#);
            Bytes::from(frame)
        });
        Self {
            as_of,
            parts: frames.collect(),
        }
    }

    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}
