//! Figures as people read them: a median and its spread, and ratios pair by pair.

/// Several measurements of one thing, in the order they were taken.
#[derive(Clone, Debug, Default)]
pub struct Figures(pub Vec<f64>);

impl Figures {
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }

    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    /// What each repetition was of the other's: a machine whose speed drifts drifts under both.
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    /// "61,679 (51,363..65,775)"
    pub fn show(&self, decimals: usize) -> String {
        format!(
            "{} ({}..{})",
            grouped(self.median(), decimals),
            grouped(self.min(), decimals),
            grouped(self.max(), decimals)
        )
    }
}

/// One line of a part's table.
pub struct Row {
    pub name: String,
    pub cells: Vec<String>,
}

pub fn row<const N: usize>(name: &str, cells: [String; N]) -> Row {
    Row {
        name: name.to_owned(),
        cells: cells.into(),
    }
}

/// Prints a table as Markdown, so that it can be kept as it is.
#[expect(clippy::print_stdout, reason = "what a benchmark prints is its result")]
pub fn print(title: &str, columns: &[&str], rows: &[Row]) {
    println!("\n## {title}\n\n| | {} |", columns.join(" | "));
    println!("|---|{}", "---|".repeat(columns.len()));
    for row in rows {
        println!("| {} | {} |", row.name, row.cells.join(" | "));
    }
}

/// A line below a table.
#[expect(clippy::print_stdout, reason = "what a benchmark prints is its result")]
pub fn remark(text: &str) {
    println!("\n{text}");
}

/// Tells whoever waits what is being measured.
#[expect(clippy::print_stderr, reason = "progress")]
pub fn progress(text: &str) {
    eprintln!("bench: {text}");
}

/// The value below or at which that many percent of the values lie; they are sorted.
pub fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    sorted
        .get(sorted.len().saturating_sub(1) * percent / 100)
        .copied()
}

/// A ratio beside what it should reach.
pub fn against(ratio: &Figures, reach: f64) -> String {
    let word = if ratio.median() >= reach {
        "reached"
    } else {
        "short"
    };
    format!("{} (reach {reach}: {word})", ratio.show(2))
}

fn grouped(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(whole, fraction)| {
            (whole, Some(fraction))
        });
    let mut shown = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) && digit.is_ascii_digit() {
            shown.push(',');
        }
        shown.push(digit);
    }
    fraction.map_or(shown.clone(), |fraction| format!("{shown}.{fraction}"))
}

/// Counts here are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub fn as_f64(count: u64) -> f64 {
    count as f64
}

/// The same of a length.
pub fn length(count: usize) -> f64 {
    as_f64(count as u64)
}

/// A rate as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive rate, far below 2^53"
)]
pub fn rounded(rate: f64) -> u64 {
    rate as u64
}
