//! What the figures were taken on, and what processes used: read from the system, Linux only where it must be.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use stockyard::clock::Clock;

/// Flushes timed, after as many that are not.
const FLUSHES: usize = 300;
/// What one flush writes: a page of the log.
const PAGE: [u8; 8192] = [0; 8192];

/// The machine in a line: processor, cores, memory, system.
pub fn describe() -> String {
    let facts = stockyard::load::host().into_iter();
    let words: Vec<String> = facts
        .map(|(what, fact)| format!("{what}: {fact}"))
        .collect();
    words.join(", ")
}

/// The times of flushing one page at the end of a file (`fdatasync`), sorted: what each commit waits for at least.
pub fn flush_times(folder: &Path) -> std::io::Result<Vec<Duration>> {
    let path = folder.join(format!("stockyard-flush-{}", std::process::id()));
    let mut file = fs::File::create(&path)?;
    let clock = Clock::system();
    let mut times = Vec::with_capacity(FLUSHES);
    // PostgreSQL writes into segments that are there already, so this does too.
    for _ in 0..FLUSHES {
        file.write_all(&PAGE)?;
    }
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    for _ in 0..FLUSHES {
        file.write_all(&PAGE)?;
        let began = clock.elapsed();
        file.sync_data()?;
        times.push(clock.elapsed().saturating_sub(began));
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times)
}

/// Seconds of processor time that a process used, with those of its children that ended (`/proc/<pid>/stat`).
pub fn processor_seconds(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name may hold anything, so counting begins after it: utime, stime, cutime, cstime are the 12th to 15th.
    let ticks = text.rsplit_once(") ").map_or(0, |(_, rest)| {
        rest.split(' ')
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum()
    });
    // USER_HZ is 100 on every Linux that Rust runs on.
    super::table::as_f64(ticks) / 100.0
}

/// The same of a process and everything it started.
pub fn family_seconds(process: u32) -> f64 {
    let children =
        fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|child| child.parse().ok());
    processor_seconds(process) + children.map(family_seconds).sum::<f64>()
}

/// The most memory a process has had resident so far, in MiB.
pub fn peak_mib(process: u32) -> f64 {
    status_mib(process, "VmHWM:")
}

/// The memory a process has resident now, in KiB.
pub fn resident_kib(process: u32) -> f64 {
    status_mib(process, "VmRSS:") * 1024.0
}

/// A field of `/proc/<pid>/status` that is in KiB, in MiB.
fn status_mib(process: u32, field: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    super::table::as_f64(kib.unwrap_or(0)) / 1024.0
}
