//! One horizontal bar chart: a bar for each peer, a whisker for its spread. SVG that takes the page's
//! colours and width.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::figures::{Measure, number};
use crate::error::{Error, Result};
use crate::results::Series;
use crate::stats::Spread;

/// Size in units of the picture; the page scales it. Narrow, so that texts stay readable on a phone.
const WIDTH: u32 = 460;
const ROW: u32 = 30;
const TOP: u32 = 30;
const BOTTOM: u32 = 6;
/// Where bars begin, and how much room the numbers behind them have.
const LABELS: i32 = 150;
const NUMBERS: i32 = 74;
const BAR: i32 = 16;

/// Stand-ins that the page's colours replace.
const TEXT: RGBColor = RGBColor(1, 2, 3);
const OURS: RGBColor = RGBColor(1, 2, 4);
const THEIRS: RGBColor = RGBColor(1, 2, 5);
const COLOURS: [(RGBColor, &str); 3] = [
    (TEXT, "currentColor"),
    (OURS, "var(--ours)"),
    (THEIRS, "var(--theirs)"),
];

/// The chart of one measure; `None` if nothing was measured.
pub(super) fn bars(measure: &Measure, series: &[&Series]) -> Result<Option<String>> {
    let rows: Vec<(String, Spread)> = series
        .iter()
        .filter_map(|s| Some((s.label(), measure.spread(s)?)))
        .collect();
    let longest = rows
        .iter()
        .map(|(_, spread)| spread.max)
        .fold(0.0, f64::max);
    if longest <= 0.0 {
        return Ok(None);
    }
    let mut svg = String::new();
    draw(&mut svg, measure, &rows, longest).map_err(|e| Error::Unreadable {
        what: "chart".into(),
        why: e,
    })?;
    Ok(Some(themed(&svg)))
}

fn draw(
    svg: &mut String,
    measure: &Measure,
    rows: &[(String, Spread)],
    longest: f64,
) -> std::result::Result<(), String> {
    let failed = |e: DrawingAreaErrorKind<_>| format!("{e:?}");
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let height = TOP + ROW * count + BOTTOM;
    let area = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    let style = |pos, size| {
        TextStyle::from(("sans-serif", size).into_font())
            .color(&TEXT)
            .pos(pos)
    };
    let left = Pos::new(HPos::Left, VPos::Center);
    let right = Pos::new(HPos::Right, VPos::Center);
    let better = if measure.more_is_better {
        "more"
    } else {
        "less"
    };
    let title = format!("{}, {} ({better} is better)", measure.name, measure.unit);
    area.draw_text(&title, &style(left, 15), (4, 14))
        .map_err(failed)?;
    let room = f64::from(WIDTH) - f64::from(LABELS + NUMBERS);
    let x = |value: f64| LABELS + (value / longest * room).round() as i32;
    for (row, (label, spread)) in (0_i32..).zip(rows) {
        let middle = i32::try_from(TOP).unwrap_or(0) + row * ROW as i32 + ROW as i32 / 2;
        let colour = if label.starts_with("corelane") {
            OURS
        } else {
            THEIRS
        };
        let bar = [
            (LABELS, middle - BAR / 2),
            (x(spread.median).max(LABELS + 1), middle + BAR / 2),
        ];
        area.draw_text(label, &style(right, 13), (LABELS - 6, middle))
            .map_err(failed)?;
        area.draw(&Rectangle::new(bar, colour.filled()))
            .map_err(failed)?;
        let whisker = [(x(spread.min), middle), (x(spread.max), middle)];
        area.draw(&PathElement::new(whisker, TEXT.stroke_width(2)))
            .map_err(failed)?;
        let end = x(spread.max).max(x(spread.median)) + 5;
        area.draw_text(&number(spread.median), &style(left, 13), (end, middle))
            .map_err(failed)?;
    }
    area.present().map_err(failed)
}

/// Lets the page choose colours and width.
fn themed(svg: &str) -> String {
    let mut svg = svg.to_owned();
    for (RGBColor(r, g, b), name) in COLOURS {
        svg = svg.replace(&format!("#{r:02X}{g:02X}{b:02X}"), name);
    }
    let sized = format!("<svg width=\"{WIDTH}\" height=");
    match svg.find(&sized) {
        None => svg,
        Some(at) => {
            let view = svg[at..].find("viewBox").map_or(at, |offset| at + offset);
            format!("<svg role=\"img\" {}", &svg[view..])
        }
    }
}
