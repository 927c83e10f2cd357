//! Lines over the seconds of a run, as SVG.

use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    element::PathElement,
    prelude::SVGBackend,
    series::LineSeries,
    style::{Color, IntoFont, RGBColor, ShapeStyle, WHITE},
};

use crate::load::{LoadError, figures::Second, outcome::Outcome, thresholds::ms};

/// A chart's size in points.
const WIDTH: u32 = 760;
const HEIGHT: u32 = 220;
/// Points of a line: of a long run several seconds are one, by their largest.
const POINTS_MAX: usize = 600;

const BLUE: RGBColor = RGBColor(31, 119, 180);
const ORANGE: RGBColor = RGBColor(230, 119, 11);
const RED: RGBColor = RGBColor(200, 30, 40);
const GREEN: RGBColor = RGBColor(44, 140, 60);
const GREY: RGBColor = RGBColor(140, 140, 140);

/// A line of a chart: its value each second; what is not known is left out.
struct Line {
    name: &'static str,
    colour: RGBColor,
    of: fn(&Second) -> Option<f64>,
}

/// What is drawn together, on one scale.
pub(super) struct Chart {
    pub(super) title: &'static str,
    lines: &'static [Line],
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

/// Nothing was answered in a second without requests.
fn answered(second: &Second, time: std::time::Duration) -> Option<f64> {
    (second.requests > 0).then(|| ms(time))
}

pub(super) const CHARTS: [Chart; 7] = [
    Chart {
        title: "Response times, ms",
        lines: &[
            Line {
                name: "p99",
                colour: RED,
                of: |second| answered(second, second.p99),
            },
            Line {
                name: "p95",
                colour: ORANGE,
                of: |second| answered(second, second.p95),
            },
            Line {
                name: "p50",
                colour: BLUE,
                of: |second| answered(second, second.p50),
            },
        ],
    },
    Chart {
        title: "Requests per second",
        lines: &[
            Line {
                name: "requests",
                colour: GREEN,
                of: |second| Some(number(second.requests)),
            },
            Line {
                name: "refused as expected",
                colour: GREY,
                of: |second| Some(number(second.refusals)),
            },
            Line {
                name: "failed",
                colour: RED,
                of: |second| Some(number(second.failures)),
            },
        ],
    },
    Chart {
        title: "Users",
        lines: &[Line {
            name: "users",
            colour: BLUE,
            of: |second| Some(number(second.users)),
        }],
    },
    Chart {
        title: "Frames to live clients per second",
        lines: &[Line {
            name: "frames",
            colour: GREEN,
            of: |second| Some(number(second.frames)),
        }],
    },
    Chart {
        title: "From a commit to live clients, ms",
        lines: &[Line {
            name: "p99",
            colour: RED,
            of: |second| (second.frames > 0).then(|| ms(second.frame_p99)),
        }],
    },
    Chart {
        title: "Memory of the service, MiB",
        lines: &[Line {
            name: "resident",
            colour: BLUE,
            of: |second| Some(mib(second.service?.resident_bytes)),
        }],
    },
    Chart {
        title: "Database connections for reads, and seconds that ingest is behind",
        lines: &[
            Line {
                name: "used",
                colour: ORANGE,
                of: |second| Some(second.service?.pool_used),
            },
            Line {
                name: "open",
                colour: GREY,
                of: |second| {
                    let service = second.service?;
                    Some(service.pool_used + service.pool_idle)
                },
            },
            Line {
                name: "behind, s",
                colour: RED,
                of: |second| Some(second.service?.lag_seconds),
            },
        ],
    },
];

impl Chart {
    /// Whether there is anything to draw.
    pub(super) fn says_something(&self, seconds: &[Second]) -> bool {
        let mut values = self
            .lines
            .iter()
            .flat_map(|line| seconds.iter().filter_map(line.of));
        values.any(|value| value > 0.0)
    }

    pub(super) fn svg(&self, outcome: &Outcome) -> Result<String, LoadError> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
            self.draw(&area, outcome).map_err(wrong)?;
            area.present().map_err(wrong)?;
        }
        Ok(svg)
    }

    fn draw(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        outcome: &Outcome,
    ) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let seconds = &outcome.seconds;
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| (line, thinned(seconds, line)))
            .collect();
        let values = lines.iter().flat_map(|(_, points)| points);
        let most = values.map(|(_, value)| *value).fold(0.0, f64::max);
        let last = seconds.last().map_or(1.0, |second| second.at);
        let top = if most > 0.0 { most * 1.1 } else { 1.0 };
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 15).into_font())
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..last, 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
            .y_label_formatter(&|value| label(*value))
            .y_labels(6)
            .draw()?;
        for (at, _) in &outcome.events {
            let style = ShapeStyle::from(&RGBColor(200, 200, 200)).stroke_width(1);
            chart.draw_series(LineSeries::new([(*at, 0.0), (*at, top)], style))?;
        }
        for (line, points) in lines {
            let colour = line.colour;
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(line.name)
                .legend(move |(x, y)| {
                    PathElement::new(vec![(x, y), (x + 14, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .draw()
    }
}

/// At most so many points, each the largest of its seconds.
fn thinned(seconds: &[Second], line: &Line) -> Vec<(f64, f64)> {
    let together = seconds.len().div_ceil(POINTS_MAX).max(1);
    let largest = |part: &[Second]| {
        let values = part
            .iter()
            .filter_map(|second| Some((second.at, (line.of)(second)?)));
        values.reduce(|one, other| if other.1 > one.1 { other } else { one })
    };
    seconds.chunks(together).filter_map(largest).collect()
}

fn label(value: f64) -> String {
    if value >= 10_000.0 {
        format!("{:.0}k", value / 1_000.0)
    } else if value >= 10.0 || value == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn wrong(error: impl ToString) -> LoadError {
    LoadError::Report(error.to_string())
}

/// The charts that say something, one below the other.
pub(super) fn overview(outcome: &Outcome) -> Result<String, LoadError> {
    let told: Vec<&Chart> = CHARTS
        .iter()
        .filter(|chart| chart.says_something(&outcome.seconds))
        .collect();
    let mut svg = String::new();
    {
        let rows = told.len().max(1);
        let height = HEIGHT * u32::try_from(rows).unwrap_or(1);
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        for (chart, part) in told.iter().zip(area.split_evenly((rows, 1))) {
            chart.draw(&part, outcome).map_err(wrong)?;
        }
        area.present().map_err(wrong)?;
    }
    Ok(svg)
}
