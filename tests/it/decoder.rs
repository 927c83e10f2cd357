//! The decoder does what a plain one does, on the corpus that the fuzzer keeps (`make fuzz`) and on changed copies of it.

use std::{collections::BTreeMap, fs, path::Path};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use stockyard::{domain, event};

use crate::support::{is_long, stream::seed};

#[path = "../../fuzz/oracle/mod.rs"]
mod oracle;

const CORPUS: &str = "fuzz/corpus/decode";
const WORDS: &str = "fuzz/decode.dict";

fn corpus() -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(Path::new(CORPUS)).unwrap().map(|file| {
        let path = file.unwrap().path();
        (
            path.file_name().unwrap().to_string_lossy().into_owned(),
            fs::read(&path).unwrap(),
        )
    });
    files.collect()
}

/// The fuzzer's words: one in quotes a line, `\` before a quote or another `\`.
fn words() -> Vec<Vec<u8>> {
    let lines = fs::read_to_string(WORDS).unwrap();
    let quoted = lines
        .lines()
        .filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    let words: Vec<Vec<u8>> = quoted
        .map(|word| word.replace(r#"\""#, "\"").replace(r"\\", r"\"))
        .map(String::into_bytes)
        .collect();
    assert!(words.contains(&br#""data":"#.to_vec()) && words.contains(&br"\u0061".to_vec()));
    words
}

#[test]
fn the_corpus_is_read_as_plainly() {
    let corpus = corpus();
    let mut facts = 0;
    for (name, input) in &corpus {
        let is_fact = oracle::check(input).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        facts += u32::from(is_fact);
    }
    assert!(corpus.len() > 100 && facts > 40, "{facts} facts");
}

/// One of these.
fn pick<'p>(random: &mut SmallRng, pieces: &[&'p str]) -> &'p str {
    pieces[random.random_range(0..pieces.len())]
}

/// A moment in one of the many ways to write one, or nearly.
fn moment(random: &mut SmallRng) -> String {
    let date = pick(
        random,
        &[
            "2025-02-18",
            "20250218",
            "2024-02-29",
            "2025-02-29",
            "+002025-02-18",
            "1999-12-31",
            "2100-01-01",
            "2000-01-01",
            "2099-12-31",
            "2025-13-01",
            "2025-0218",
            "2025-049",
        ],
    );
    let between = pick(random, &["T", "T", "T", "t", " ", "", "_"]);
    let time = pick(
        random,
        &[
            "14:34:56", "143456", "14:34", "1434", "14", "23:59:60", "23:59:61", "24:00:00",
            "00:00:00", "23:59:59", "14:3456", "1434:56", "14:34:5", "",
        ],
    );
    let fraction = pick(
        random,
        &["", "", ".5", ",123456", ".999999999", ".1234567890", "."],
    );
    let offset = pick(
        random,
        &[
            "",
            "Z",
            "z",
            "+03:00",
            "-0530",
            "+23",
            "+23:59:59.5",
            "+03:00:15.5",
            "-24:00",
            "-00:00",
            "+03:60",
            "[UTC]",
            "Z[u-ca=iso8601]",
            "Z ",
            "+3",
        ],
    );
    format!("{date}{between}{time}{fraction}{offset}")
}

/// A message of the right shape, every part of which is written in one of the ways that are allowed, or nearly.
fn compose(random: &mut SmallRng) -> Vec<u8> {
    const IDS: [&str; 6] = [
        r#""c6290746-790e-43fa-8270-014dc90e02e0""#,
        r#""C6290746790E43FA8270014DC90E02E0""#,
        r#""\u00636290746790e43fa8270014dc90e02e0""#,
        r#""00000000-0000-0000-0000-000000000001""#,
        r#""00000000000000000000000000000000""#,
        r#""{c6290746-790e-43fa-8270-014dc90e02e0}""#,
    ];
    const UNITS: [&str; 9] = [
        "0",
        "100",
        "1000000000000",
        "1000000000001",
        "-0",
        "1e2",
        "100.0",
        "00",
        "\"1\"",
    ];
    const UNKNOWN: [&str; 8] = [
        r#""x":1e999"#,
        r#""x":"\ud800""#,
        r#""x":[[{"data":{}}]]"#,
        r#""":null"#,
        r#""\ud800":1"#,
        r#""quantity":1"#,
        r#""data":null"#,
        r#""source":"WH-2""#,
    ];
    const ANYTHING: [&str; 8] = [
        "null",
        "true",
        "0",
        "-1.5",
        "\"\"",
        "\"\\ud800\"",
        "[]",
        "{}",
    ];
    // Most parts are good, or hardly any message would be.
    let mut odd = |good: usize, pieces: &[&'static str]| match random.random_range(0..100) {
        0..2 => pick(random, &ANYTHING),
        2..10 => pick(random, pieces),
        _ => pick(random, &pieces[..good]),
    };
    let mut fields: Vec<String> = vec![
        format!("\"movement_id\":{}", odd(4, &IDS)),
        format!("\"warehouse_id\":{}", odd(4, &IDS)),
        format!("\"product_id\":{}", odd(4, &IDS)),
        format!("\"quantity\":{}", odd(3, &UNITS)),
        format!(
            "{}:{}",
            odd(2, &["\"event\"", "\"\\u0065vent\"", "\"Event\""]),
            odd(
                3,
                &[
                    "\"arrival\"",
                    "\"departure\"",
                    "\"depart\\u0075re\"",
                    "\"\"",
                    "{\"arrival\":null}"
                ]
            )
        ),
    ];
    let mut envelope = vec![format!(
        "\"source\":{}",
        odd(
            9,
            &[
                "\"WH-1\"",
                "\"WH-\"",
                "\"WH-12345678901234567890\"",
                "\"WH-123456789012345678901\"",
                "\"EXTERNAL\"",
                "7",
                "null",
                "\"\\u0057H-1\"",
                "\"WH-\\ud800\"",
                "WH-1"
            ]
        )
    )];
    let at = if random.random_bool(0.5) {
        "2025-02-18T14:34:56Z".to_owned()
    } else {
        moment(random)
    };
    fields.push(format!("\"timestamp\":\"{at}\""));
    for fields in [&mut fields, &mut envelope] {
        if random.random_bool(0.2) {
            fields.push(pick(random, &UNKNOWN).to_owned());
        }
        fields.shuffle(random);
    }
    let data = format!("{{{}}}", fields.join(pick(random, &[",", ", ", "\n,\t"])));
    if random.random_bool(0.2) {
        return format!("#ce_source:WH-9\n{data}").into_bytes();
    }
    envelope.push(format!("\"data\":{data}"));
    format!("{{{}}}", envelope.join(",")).into_bytes()
}

/// One change: bytes taken out, put in, doubled or replaced, by a word or at random.
fn change(input: &mut Vec<u8>, words: &[Vec<u8>], others: &[&Vec<u8>], random: &mut SmallRng) {
    let mut place = |up_to: usize| random.random_range(0..=up_to);
    let (from, length) = (place(input.len()), place(8));
    let to = (from + length).min(input.len());
    let piece = match place(5) {
        0 => Vec::new(),
        1 => words[place(words.len() - 1)].clone(),
        2 => input[from..to].repeat(2),
        3 => vec![u8::try_from(place(255)).unwrap()],
        4 => {
            let signs = b"{}[]\",:\\0123456789.+-eEZtT #\n";
            vec![signs[place(signs.len() - 1)]]
        }
        _ => {
            let other = others[place(others.len() - 1)];
            let (start, length) = (place(other.len()), place(80));
            other[start..(start + length).min(other.len())].to_vec()
        }
    };
    let to = if place(2) == 0 { from } else { to };
    input.splice(from..to, piece);
}

/// Checks that many messages, and that at least so many of them are facts: what is refused at the first character says little.
fn are_read_as_plainly(make: impl Fn(&mut SmallRng) -> Vec<u8>, one_in: u32) {
    let seed = seed();
    let mut random = SmallRng::seed_from_u64(seed);
    let times = if is_long() { 5_000_000 } else { 50_000 };
    let mut facts = 0;
    for _ in 0..times {
        let input = make(&mut random);
        let is_fact = oracle::check(&input)
            .unwrap_or_else(|fault| panic!("STOCKYARD_TEST_SEED={seed}: {fault}"));
        facts += u32::from(is_fact);
    }
    eprintln!("{facts} of {times} messages were facts");
    assert!(facts * one_in > times, "{facts} facts");
}

#[test]
fn changed_messages_are_read_as_plainly() {
    let (corpus, words) = (corpus(), words());
    let others: Vec<&Vec<u8>> = corpus.values().collect();
    let make = |random: &mut SmallRng| {
        let mut input = if random.random_bool(0.5) {
            compose(random)
        } else {
            others[random.random_range(0..others.len())].clone()
        };
        for _ in 0..random.random_range(1..3) {
            change(&mut input, &words, &others, random);
        }
        input
    };
    are_read_as_plainly(make, 200);
}

#[test]
fn composed_messages_are_read_as_plainly() {
    are_read_as_plainly(compose, 5);
}
