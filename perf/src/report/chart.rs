//! One horizontal bar chart: a bar for each peer, a whisker for its spread. SVG that takes the page's
//! colours and width.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::figures::{Measure, number};
use crate::error::{Error, Result};
use crate::results::Series;
use crate::stats::Spread;

/// Size in units of the picture; the page scales it. Narrow, so that texts stay readable on a phone.
const WIDTH: u32 = 400;
const ROW: i32 = 38;
const TOP: i32 = 30;
/// Where bars begin, and how much room the numbers behind them have.
const LEFT: i32 = 4;
const NUMBERS: i32 = 64;
/// Within a row: the middle of the name, the top and the middle and the bottom of the bar.
const NAME_AT: i32 = 9;
const BAR_AT: [i32; 3] = [18, 25, 32];
/// Sizes of texts as the library counts them: about a quarter more than pixels.
const TITLE_SIZE: i32 = 19;
const TEXT_SIZE: i32 = 17;

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
    let count = i32::try_from(rows.len()).unwrap_or(i32::MAX);
    let height = (TOP + ROW * count).unsigned_abs();
    let area = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    let write = |text: &str, size: i32, at| {
        let style = TextStyle::from(("sans-serif", size).into_font());
        let style = style.color(&TEXT).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw_text(text, &style, at).map_err(failed)
    };
    let better = if measure.more_is_better {
        "more"
    } else {
        "less"
    };
    let title = format!("{}, {} ({better} is better)", measure.name, measure.unit);
    write(&title, TITLE_SIZE, (LEFT, 14))?;
    let room = f64::from(WIDTH) - f64::from(LEFT + NUMBERS);
    let x = |value: f64| LEFT + (value / longest * room).round() as i32;
    for (row, (label, spread)) in (0_i32..).zip(rows) {
        let [top, middle, bottom] = BAR_AT.map(|at| TOP + row * ROW + at);
        let colour = if label.starts_with("corelane") {
            OURS
        } else {
            THEIRS
        };
        write(label, TEXT_SIZE, (LEFT, TOP + row * ROW + NAME_AT))?;
        let bar = [(LEFT, top), (x(spread.median).max(LEFT + 1), bottom)];
        area.draw(&Rectangle::new(bar, colour.filled()))
            .map_err(failed)?;
        let whisker = [(x(spread.min), middle), (x(spread.max), middle)];
        area.draw(&PathElement::new(whisker, TEXT.stroke_width(2)))
            .map_err(failed)?;
        let end = x(spread.max).max(x(spread.median)) + 5;
        write(&number(spread.median), TEXT_SIZE, (end, middle))?;
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
