//! The letters at a glance, a line for each message.
//!
//! Invariant: memory is bounded by [`ROWS_MAX`]; beyond it the oldest are left out, and it is said.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io::Write,
};

use serde_json::json;

use super::{DeadLetters, DeadLettersError, Identity, Letter, Selection, text};
use crate::{
    domain::Timestamp,
    event::dead_letter::{Origin, Told},
};

/// Most messages that are held: about 500 bytes each.
const ROWS_MAX: usize = 100_000;
/// How much of the detail is shown, in characters: the rest is for `show`.
const DETAIL_CHARS: usize = 100;
/// More failures of one message are not counted.
const FAILED_AGAIN_MAX: usize = 1_000;
/// A stage is a word of Kafka Connect's.
const STAGE_CHARS: usize = 20;

/// What is said of one message: by its newest letter, and how many there are.
struct Row {
    newest: Told,
    value_bytes: u64,
    written_at: Option<Timestamp>,
    letters: u64,
    /// Where it failed again after it was replayed, by partition and offset.
    failed_again: BTreeSet<(i32, i64)>,
}

/// The newest messages, in the order of their first letters.
struct Rows {
    held_max: usize,
    by_identity: HashMap<Identity, Row>,
    order: VecDeque<Identity>,
    letters: u64,
    left_out: u64,
}

impl DeadLetters {
    /// Writes a line for each of the newest `limit` messages, and in text one with the sums of all.
    pub fn list(
        &self,
        selection: &Selection,
        limit: Option<usize>,
        as_json: bool,
        out: &mut dyn Write,
    ) -> Result<(), DeadLettersError> {
        let mut rows = Rows::new(ROWS_MAX);
        let strangers = self.each(selection, |letter| {
            rows.add(&letter);
            Ok(())
        })?;
        let sums = rows.sums(strangers);
        let mut rows: Vec<Row> = rows.by_identity.into_values().collect();
        rows.sort_by_cached_key(|row| (row.written_at, row.newest.first_origin.clone()));
        let newest = &rows[rows.len().saturating_sub(limit.unwrap_or(ROWS_MAX))..];
        if as_json {
            for row in newest {
                writeln!(out, "{}", row.json())?;
            }
        } else {
            write_table(newest, out)?;
            writeln!(out, "{sums}")?;
        }
        Ok(())
    }
}

impl Rows {
    fn new(held_max: usize) -> Self {
        Self {
            held_max,
            by_identity: HashMap::new(),
            order: VecDeque::new(),
            letters: 0,
            left_out: 0,
        }
    }

    fn add(&mut self, letter: &Letter) {
        self.letters += 1;
        let identity = letter.identity();
        let row = self.by_identity.entry(identity.clone()).or_insert_with(|| {
            self.order.push_back(identity);
            Row {
                newest: letter.told.clone(),
                value_bytes: letter.value_bytes(),
                written_at: None,
                letters: 0,
                failed_again: BTreeSet::new(),
            }
        });
        row.add(letter);
        if self.by_identity.len() > self.held_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_identity.remove(&oldest);
            self.left_out += 1;
        }
    }

    fn sums(&self, strangers: u64) -> String {
        let mut by_reason: BTreeMap<&str, u64> = BTreeMap::new();
        for row in self.by_identity.values() {
            *by_reason.entry(row.newest.reason.as_str()).or_default() += 1;
        }
        let by_reason: Vec<String> = by_reason
            .into_iter()
            .map(|(reason, messages)| format!("{messages} {reason}"))
            .collect();
        let mut sums = vec![
            format!(
                "{} messages in {} letters",
                self.by_identity.len(),
                self.letters
            ),
            by_reason.join(", "),
        ];
        if self.left_out > 0 {
            sums.push(format!("{} older messages are left out", self.left_out));
        }
        if strangers > 0 {
            sums.push(format!(
                "{strangers} messages are no dead letters of Stockyard"
            ));
        }
        sums.retain(|sum| !sum.is_empty());
        sums.join("; ")
    }
}

impl Row {
    fn add(&mut self, letter: &Letter) {
        let told = &letter.told;
        self.letters += 1;
        if told.origin != told.first_origin && self.failed_again.len() < FAILED_AGAIN_MAX {
            self.failed_again
                .insert((told.origin.partition, told.origin.offset));
        }
        if letter.written_at >= self.written_at {
            self.written_at = letter.written_at;
            self.newest = Told {
                stage: text::on_one_line(&told.stage, STAGE_CHARS),
                detail: text::on_one_line(&told.detail, DETAIL_CHARS),
                ..told.clone()
            };
        }
    }

    fn json(&self) -> serde_json::Value {
        let Origin {
            topic,
            partition,
            offset,
        } = &self.newest.first_origin;
        json!({
            "origin": self.newest.first_origin.to_string(), "topic": topic, "partition": partition, "offset": offset,
            "reason": self.newest.reason.as_str(), "stage": self.newest.stage, "detail": self.newest.detail,
            "written_at": self.written_at.map(|at| at.to_string()),
            "value_bytes": self.value_bytes, "value_omitted": self.newest.omitted_bytes.is_some(),
            "letters": self.letters, "failed_again": self.failed_again.len(),
        })
    }

    fn cells(&self) -> [String; 8] {
        let omitted = if self.newest.omitted_bytes.is_some() {
            " (left out)"
        } else {
            ""
        };
        [
            self.newest.first_origin.to_string(),
            self.newest.reason.to_string(),
            self.newest.stage.clone(),
            self.written_at
                .map_or_else(|| "-".to_owned(), |at| at.to_string()),
            self.letters.to_string(),
            self.failed_again.len().to_string(),
            format!("{}{omitted}", self.value_bytes),
            self.newest.detail.clone(),
        ]
    }
}

fn write_table(rows: &[Row], out: &mut dyn Write) -> std::io::Result<()> {
    const HEAD: [&str; 8] = [
        "ORIGIN",
        "REASON",
        "STAGE",
        "WRITTEN",
        "LETTERS",
        "FAILED AGAIN",
        "BYTES",
        "DETAIL",
    ];
    let mut widths = HEAD.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.cells()) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut write_line = |cells: &[String; 8]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    if !rows.is_empty() {
        write_line(&HEAD.map(str::to_owned))?;
    }
    rows.iter().try_for_each(|row| write_line(&row.cells()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dead_letters::reader::Content, event::dead_letter::Reason};

    fn letter(offset: i64) -> Letter {
        let origin = Origin {
            topic: "moves".to_owned(),
            partition: 0,
            offset,
        };
        Letter {
            told: Told {
                origin: origin.clone(),
                first_origin: origin,
                reason: Reason::NotJson,
                stage: String::new(),
                detail: "x".repeat(1_000),
                omitted_bytes: None,
            },
            content: Content::default(),
            written_at: Some(Timestamp::from_micros(offset)),
        }
    }

    #[test]
    fn what_is_held_is_bounded_and_the_newest() {
        let mut rows = Rows::new(2);
        for offset in [1, 2, 1, 3, 2, 4] {
            rows.add(&letter(offset));
        }
        let mut held: Vec<i64> = rows
            .by_identity
            .keys()
            .map(|identity| identity.first_origin.offset)
            .collect();
        held.sort_unstable();
        assert_eq!(held, [3, 4]);
        assert_eq!(rows.order.len(), 2);
        assert!(
            rows.by_identity
                .values()
                .all(|row| row.newest.detail.chars().count() == DETAIL_CHARS + 1)
        );
        let sums = "2 messages in 6 letters; 2 not_json; 2 older messages are left out";
        assert_eq!(rows.sums(0), sums);
    }
}
