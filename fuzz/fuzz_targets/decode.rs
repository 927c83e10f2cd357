//! Whatever bytes come, the decoder says what the plain one says.
#![no_main]
// The service's code, of which this is only a part.
#![allow(dead_code, unused_imports)]

#[path = "../../src/domain/mod.rs"]
mod domain;
#[path = "../../src/event/mod.rs"]
mod event;
#[path = "../oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Err(fault) = oracle::check(input) {
        panic!("{fault}");
    }
});
