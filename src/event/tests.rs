use super::*;
use serde_json::{Value, json};

const PUBLISHED: &str = r#"{"id":"b3b53031-e83a-4654-87f5-b6b6fb09fd99","source":"WH-3322","specversion":"1.0",
    "type":"ru.retail.warehouses.movement","datacontenttype":"application/json",
    "dataschema":"ru.retail.warehouses.movement.v1.0","time":1737439421623,"subject":"WH-3322:DEPARTURE",
    "destination":"ru.retail.warehouses","data":{"movement_id":"c6290746-790e-43fa-8270-014dc90e02e0",
    "warehouse_id":"25718666-6af6-4281-b5a6-3016e36fa557","timestamp":"2025-02-18T12:12:56Z","event":"departure",
    "product_id":"4705204f-498f-4f96-b4ba-df17fb56bf55","quantity":100}}"#;

fn data() -> Value {
    json!({
        "movement_id": "c6290746790e43fa8270014dc90e02e0", "warehouse_id": "c1d704557e1411e9812a70106f431230",
        "timestamp": "2025-02-18T14:34:56.123456", "event": "arrival",
        "product_id": "4705204f498f4f96b4badf17fb56bf55", "quantity": 100
    })
}

fn decode_text(text: &str) -> Result<Fact, BadMessage> {
    decode(Some(text.as_bytes()), Form::Structured)
}

fn reason_of(text: &str) -> Reason {
    decode_text(text).expect_err(text).reason
}

#[test]
fn both_published_forms_are_read() {
    let departure = decode_text(PUBLISHED).unwrap();
    assert_eq!(departure.side, Side::Departure);
    assert_eq!(departure.report.at.to_string(), "2025-02-18T12:12:56Z");
    assert_eq!(
        departure.code.map(|c| c.as_str().to_owned()).as_deref(),
        Some("WH-3322")
    );

    let arrival = decode_text(&json!({ "data": data() }).to_string()).unwrap();
    assert_eq!(
        (arrival.movement, arrival.product),
        (departure.movement, departure.product)
    );
    assert_eq!(arrival.report.quantity.units(), 100);
}

#[test]
fn an_envelope_is_lenient() {
    for envelope in [
        json!({ "source": "EXTERNAL", "id": 7, "time": "2025-02-18T12:12:56Z" }),
        json!({ "source": ["WH-1"], "time": null, "id": {} }),
        json!({ "source": null, "unknown": { "deep": [1, 2, { "er": true }] } }),
        json!({}),
    ] {
        let mut message = envelope;
        message["data"] = data();
        message["data"]["unknown"] = json!([1]);
        assert_eq!(
            decode_text(&message.to_string()).unwrap().code,
            None,
            "{message}"
        );
    }
}

#[test]
fn escapes_are_another_way_to_write() {
    let mut data = data();
    data["event"] = json!("arrival");
    let text = json!({ "source": "WH-7", "data": data }).to_string();
    let escaped = text
        .replace("WH-7", "WH\\u002d7")
        .replace(r#""arrival""#, r#""arriv\u0061l""#)
        .replace(r#""data""#, r#""d\u0061ta""#);
    assert_ne!(text, escaped);
    assert_eq!(decode_text(&text).unwrap(), decode_text(&escaped).unwrap());
    // Half a surrogate pair is no text, and so no code.
    let half = text.replace("WH-7", "WH-7\\udc00");
    assert_eq!(decode_text(&half).unwrap().code, None);
}

#[test]
fn binary_mode_has_the_data_as_the_value() {
    let headers = [
        ("ce_source", Some(b"WH-7".as_slice())),
        ("ce_type", Some(b"x".as_slice())),
    ];
    let form = Form::of_headers(headers.into_iter());
    let fact = decode(Some(data().to_string().as_bytes()), form).unwrap();
    assert_eq!(
        fact.code.map(|c| c.as_str().to_owned()).as_deref(),
        Some("WH-7")
    );

    let structured = [
        (
            "content-type",
            Some(b"application/cloudevents+json".as_slice()),
        ),
        ("ce_id", None),
    ];
    assert_eq!(Form::of_headers(structured.into_iter()), Form::Structured);
    assert_eq!(Form::of_headers(std::iter::empty()), Form::Structured);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of values")]
fn every_field_is_needed_and_checked() {
    let wrong: [(&str, &[Value]); 6] = [
        (
            "movement_id",
            &[
                json!(1),
                json!(""),
                json!("c6290746"),
                json!("00000000-0000-0000-0000-000000000000"),
                json!("{c6290746-790e-43fa-8270-014dc90e02e0}"),
                json!("00000000000000000000000000000000"),
            ],
        ),
        (
            "warehouse_id",
            &[
                json!(null),
                json!("WH-3322"),
                json!("00000000000000000000000000000000"),
            ],
        ),
        (
            "product_id",
            &[json!([]), json!("00000000000000000000000000000000")],
        ),
        (
            "event",
            &[
                json!("Departure"),
                json!("void"),
                json!({ "departure": null }),
                json!(0),
                json!(null),
            ],
        ),
        (
            "timestamp",
            &[
                json!(1_737_439_421_623_i64),
                json!("1970-01-01T00:00:00Z"),
                json!("2100-01-01T00:00:00Z"),
                json!("yesterday"),
                json!("2025-02-18"),
                json!(""),
            ],
        ),
        (
            "quantity",
            &[
                json!(-1),
                json!(1.5),
                json!(100.0),
                json!("100"),
                json!(1_000_000_000_001_i64),
                json!(1e30),
                json!(u64::MAX),
                json!(null),
                json!(true),
            ],
        ),
    ];
    for (field, values) in wrong {
        for value in values {
            let mut bad = data();
            bad[field] = value.clone();
            assert_eq!(
                reason_of(&json!({ "data": bad }).to_string()),
                Reason::InvalidMessage,
                "{field} {value}"
            );
        }
        let mut missing = data();
        missing.as_object_mut().unwrap().remove(field);
        assert_eq!(
            reason_of(&json!({ "data": missing }).to_string()),
            Reason::InvalidMessage,
            "{field}"
        );
    }
    for units in [0, Quantity::MAX] {
        let mut edge = data();
        edge["quantity"] = json!(units);
        assert_eq!(
            decode_text(&json!({ "data": edge }).to_string())
                .unwrap()
                .report
                .quantity
                .units(),
            units
        );
    }
}

#[test]
fn what_is_not_json_says_so() {
    let nan = json!({ "data": data() })
        .to_string()
        .replace(":100,", ":NaN,");
    let brackets = "[".repeat(100_000);
    let junk = "x".repeat(1_000_000);
    for text in [
        "",
        " ",
        "junk",
        "{",
        "\u{feff}{}",
        PUBLISHED.strip_suffix('}').unwrap(),
        &nan,
        &brackets,
        &junk,
    ] {
        assert_eq!(
            reason_of(text),
            Reason::NotJson,
            "{}",
            &text[..text.len().min(20)]
        );
    }
    assert_eq!(
        decode(Some(b"\xff\xfe"), Form::Structured)
            .unwrap_err()
            .reason,
        Reason::NotJson
    );
}

#[test]
fn json_of_another_shape_is_invalid() {
    let closed = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let positions =
        json!({ "data": ["c6290746790e43fa8270014dc90e02e0", "c1d704557e1411e9812a70106f431230",
        "2025-02-18T14:34:56", "arrival", "4705204f498f4f96b4badf17fb56bf55", 100] })
        .to_string();
    for text in [
        "null",
        "1",
        "\"x\"",
        "[]",
        "{}",
        r#"{"data":null}"#,
        r#"{"data":{}}"#,
        &closed,
        &positions,
    ] {
        assert_eq!(reason_of(text), Reason::InvalidMessage, "{text}");
    }
    assert_eq!(
        decode(None, Form::Structured).unwrap_err().reason,
        Reason::InvalidMessage
    );
}

#[test]
fn what_is_larger_is_not_looked_into() {
    let bytes = PUBLISHED.as_bytes();
    assert!(decode_within(bytes.len(), Some(bytes), Form::Structured).is_ok());
    let bad = decode_within(bytes.len() - 1, Some(bytes), Form::Structured).unwrap_err();
    assert_eq!(bad.reason, Reason::TooLarge);
    let tombstone = decode_within(0, None, Form::Structured).unwrap_err();
    assert_eq!(tombstone.reason, Reason::InvalidMessage);
}

#[test]
fn a_detail_is_cut_at_a_character() {
    let origin = dead_letter::Origin {
        topic: "movements".to_owned(),
        partition: 1,
        offset: 2,
    };
    let headers = dead_letter::headers(&origin, Reason::NotJson, &"ü".repeat(2_000));
    assert!(headers.iter().all(|(_, value)| value.len() <= 1_000));
}

proptest::proptest! {
    /// Whatever arrives, the decoder answers.
    #[test]
    fn no_bytes_break_the_decoder(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = decode(Some(&bytes), Form::Structured);
    }

    /// Nor does a message with a piece of it replaced.
    #[test]
    fn no_damage_breaks_the_decoder(at in 0..600_usize, with in ".{0,4}") {
        let at = at.min(PUBLISHED.len());
        let (head, tail) = PUBLISHED.split_at(at);
        let _ = decode_text(&format!("{head}{with}{}", tail.get(1..).unwrap_or_default()));
    }
}
