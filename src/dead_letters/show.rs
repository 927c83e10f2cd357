//! One message's letters in full.

use std::io::Write;

use super::{DeadLetters, DeadLettersError, Letter, Selection, text};
use crate::event::dead_letter::Origin;

impl DeadLetters {
    /// Writes every letter of that origin, first or later; returns how many there are.
    pub fn show(&self, origin: Origin, out: &mut dyn Write) -> Result<u64, DeadLettersError> {
        let selection = Selection {
            origins: vec![origin],
            ..Selection::default()
        };
        let mut shown = 0;
        self.each(&selection, |letter| {
            shown += 1;
            Ok(show(&letter, out)?)
        })?;
        Ok(shown)
    }
}

fn show(letter: &Letter, out: &mut dyn Write) -> std::io::Result<()> {
    let told = &letter.told;
    write!(out, "dead letter of {}", told.origin)?;
    if told.first_origin != told.origin {
        write!(out, ", replayed from {}", told.first_origin)?;
    }
    match letter.written_at {
        Some(at) => writeln!(out, ", written {at}")?,
        None => writeln!(out)?,
    }
    for (name, value) in &letter.content.headers {
        let name = text::on_one_line(name, usize::MAX);
        match value {
            Some(value) => writeln!(out, "header {name}: {}", text::in_full(value).1)?,
            None => writeln!(out, "header {name} without a value")?,
        }
    }
    show_bytes("key", letter.content.key.as_deref(), out)?;
    match told.omitted_bytes {
        Some(bytes) => writeln!(
            out,
            "value left out: {bytes} bytes, which are at {} as long as Kafka has them",
            told.origin
        )?,
        None => show_bytes("value", letter.content.value.as_deref(), out)?,
    }
    writeln!(out)
}

fn show_bytes(name: &str, bytes: Option<&[u8]>, out: &mut dyn Write) -> std::io::Result<()> {
    match bytes {
        None => writeln!(out, "no {name}"),
        Some(bytes) => {
            let (form, shown) = text::in_full(bytes);
            writeln!(out, "{name}, {} bytes as {form}:\n{shown}", bytes.len())
        }
    }
}
