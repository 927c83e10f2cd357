//! What producers wrote, as a terminal may show it. Nothing is left out or put in order; control characters, which could
//! steer the terminal, are escaped.

use serde::de::IgnoredAny;

/// Deepest indentation, so that brackets by the thousand do not become spaces by the million.
const INDENTED_MAX: usize = 32;

/// A text on one line, cut after that many characters.
pub(super) fn on_one_line(text: &str, chars_max: usize) -> String {
    let mut line = escaped(text.chars().take(chars_max), |_| false);
    if text.chars().nth(chars_max).is_some() {
        line.push('…');
    }
    line
}

/// Bytes in full and what they are: JSON (indented), text, or neither.
pub(super) fn in_full(bytes: &[u8]) -> (&'static str, String) {
    let keep_lines = |c| c == '\n' || c == '\t';
    match str::from_utf8(bytes) {
        Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            ("JSON", escaped(indented(text).chars(), keep_lines))
        }
        Ok(text) => ("text", escaped(text.chars(), keep_lines)),
        Err(_) => {
            let mut hex = String::with_capacity(bytes.len() * 2);
            let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            hex.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
            ("hex digits", hex)
        }
    }
}

fn escaped(text: impl Iterator<Item = char>, keeps: impl Fn(char) -> bool) -> String {
    let mut shown = String::new();
    for c in text {
        if c.is_control() && !keeps(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// JSON with other white space: numbers, order and repeated names stay as they came.
fn indented(json: &str) -> String {
    let mut shown = String::with_capacity(json.len() * 2);
    let (mut depth, mut is_in_string, mut is_escaped, mut has_opened) = (0, false, false, false);
    let new_line = |shown: &mut String, depth: usize| {
        shown.push('\n');
        shown.extend(std::iter::repeat_n("  ", depth.min(INDENTED_MAX)));
    };
    for c in json.chars() {
        if is_in_string {
            is_in_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
            shown.push(c);
            continue;
        }
        if c.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        depth -= usize::from(closes);
        if has_opened != closes {
            new_line(&mut shown, depth);
        }
        has_opened = matches!(c, '{' | '[');
        depth += usize::from(has_opened);
        is_in_string = c == '"';
        shown.push(c);
        match c {
            ',' => new_line(&mut shown, depth),
            ':' => shown.push(' '),
            _ => {}
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_otherwise_as_it_came() {
        let json = r#"{"b":1e300,"a": "x{\"y,\\","b":[1,{}, [ ],1.50],"c":{"d":null}}"#;
        let expected = r#"{
  "b": 1e300,
  "a": "x{\"y,\\",
  "b": [
    1,
    {},
    [],
    1.50
  ],
  "c": {
    "d": null
  }
}"#;
        assert_eq!(in_full(json.as_bytes()), ("JSON", expected.to_owned()));
    }

    #[test]
    fn deep_brackets_stay_small() {
        let depth = 10_000;
        let json = format!("{}{}", "[1,".repeat(depth), "1]".repeat(depth));
        let valid = json.replace("1]1]", "1],1]");
        for text in [json, valid] {
            assert!(in_full(text.as_bytes()).1.len() < 100 * text.len());
        }
    }

    #[test]
    fn no_byte_steers_the_terminal() {
        assert_eq!(
            in_full(b"a\x1b[2Jb\r\n\tc\xc2\x9b"),
            ("text", "a\\u{1b}[2Jb\\r\n\tc\\u{9b}".to_owned())
        );
        assert_eq!(on_one_line("a\nb\x1b", 9), "a\\nb\\u{1b}");
        assert_eq!(
            in_full(b"\xff\x00\x1b"),
            ("hex digits", "ff001b".to_owned())
        );
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(on_one_line("éééé", 3), "ééé…");
        assert_eq!(on_one_line("ééé", 3), "ééé");
    }
}
