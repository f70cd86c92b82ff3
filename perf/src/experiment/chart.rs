//! The chart of an experiment: a panel for each work and measure, a column for each value.

use plotters::coord::ranged1d::SegmentedCoord;
use plotters::coord::types::{RangedCoordf64, RangedCoordi32};
use plotters::prelude::*;

use super::Outcome;
use super::judge::{Measure, of_work};
use crate::results::Series;
use crate::stats::Spread;

const PANEL_WIDTH: u32 = 460;
const PANEL_HEIGHT: u32 = 260;
const HEAD_HEIGHT: u32 = 44;
const INK: RGBColor = RGBColor(60, 60, 60);
const BASELINE: RGBColor = RGBColor(31, 119, 180);
const OTHER: RGBColor = RGBColor(214, 112, 39);

/// Draws it.
///
/// # Errors
/// What plotters says.
pub(super) fn svg(outcome: &Outcome) -> Result<String, String> {
    let mut works: Vec<&str> = outcome
        .series
        .iter()
        .map(|series| series.work.as_str())
        .collect();
    works.dedup();
    let panels: Vec<(&str, Measure)> = works
        .iter()
        .flat_map(|work| drawn(work).into_iter().map(|measure| (*work, measure)))
        .collect();
    let columns = 2;
    let rows = panels.len().div_ceil(columns);
    let size = (
        PANEL_WIDTH * columns as u32,
        HEAD_HEIGHT + PANEL_HEIGHT * u32::try_from(rows).map_err(|error| error.to_string())?,
    );
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(|error| error.to_string())?;
        let (head, body) = root.split_vertically(HEAD_HEIGHT);
        let experiment = &outcome.experiment;
        let title = format!(
            "{}: {} ({})",
            experiment.name, experiment.knob, outcome.date
        );
        head.titled(&title, ("sans-serif", 18).into_font().color(&INK))
            .map_err(|error| error.to_string())?;
        for ((work, measure), area) in panels.iter().zip(body.split_evenly((rows, columns))) {
            panel(&area, outcome, work, *measure)?;
        }
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// The first measure, and the one that users feel.
fn drawn(work: &str) -> [Measure; 2] {
    let measures = Measure::of(work);
    let second = if measures.contains(&Measure::Tail) {
        Measure::Tail
    } else {
        Measure::Rate
    };
    [Measure::Cpu, second]
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// A figure at an axis: no more digits than a round step needs.
fn axis(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn panel(area: &Area<'_>, outcome: &Outcome, work: &str, measure: Measure) -> Result<(), String> {
    let Some((series, baseline)) = of_work(outcome, work) else {
        return Ok(());
    };
    let values = |series: &Series| {
        measure
            .values(series)
            .into_iter()
            .flatten()
            .collect::<Vec<f64>>()
    };
    let most = series
        .iter()
        .flat_map(|s| values(s))
        .fold(0.0_f64, f64::max);
    let count = i32::try_from(series.len()).map_err(|error| error.to_string())?;
    let top = if most > 0.0 { most * 1.08 } else { 1.0 };
    let failed = |error: DrawingAreaErrorKind<std::io::Error>| error.to_string();
    let caption = format!("{work}, {}", measure.name(&baseline.unit));
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 14).into_font().color(&INK))
        .margin(8)
        .margin_right(16)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d((0..count - 1).into_segmented(), 0.0..top)
        .map_err(failed)?;
    let labels: Vec<&str> = series.iter().map(|s| s.peer.as_str()).collect();
    let label = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(index) => {
            let label = usize::try_from(*index)
                .ok()
                .and_then(|index| labels.get(index));
            label.map_or_else(String::new, |label| (*label).to_owned())
        }
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(labels.len())
        .y_labels(6)
        .x_label_formatter(&label)
        .y_label_formatter(&|value| axis(*value))
        .label_style(("sans-serif", 11).into_font().color(&INK))
        .axis_style(INK)
        .y_max_light_lines(0)
        .bold_line_style(RGBColor(225, 225, 225))
        .draw()
        .map_err(failed)?;
    for (index, series) in (0..count).zip(&series) {
        let colour = if series.peer == baseline.peer {
            BASELINE
        } else {
            OTHER
        };
        column(&mut chart, index, &values(series), colour).map_err(failed)?;
    }
    Ok(())
}

type Panel<'a, 'b> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<SegmentedCoord<RangedCoordi32>, RangedCoordf64>>;

/// Every round as a ring, their span as a line, the median as a dot.
fn column(
    chart: &mut Panel<'_, '_>,
    index: i32,
    values: &[f64],
    colour: RGBColor,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let Some(spread) = Spread::of(values.iter().copied()) else {
        return Ok(());
    };
    let at = |value: f64| (SegmentValue::CenterOf(index), value);
    let span = [at(spread.min), at(spread.max)];
    chart.draw_series([PathElement::new(span, colour.stroke_width(2))])?;
    chart.draw_series(
        values
            .iter()
            .map(|value| Circle::new(at(*value), 3, colour.stroke_width(1))),
    )?;
    chart.draw_series([Circle::new(at(spread.median), 5, colour.filled())])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Sample;

    #[test]
    fn figures_at_an_axis_have_no_needless_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.05, "0.05"),
            (40.0, "40"),
            (2.5, "2.5"),
            (150_000.0, "150000"),
        ] {
            assert_eq!(axis(value), text);
        }
    }

    #[test]
    fn a_chart_has_a_panel_for_each_measure_and_a_dot_for_each_round() {
        let text = "{name: a, question: q, knob: k, decides: d, baseline: x, way: tunnel, work: [bulk-up], \
                    rounds: 2, seconds: 1, values: [{label: x}, {label: y}]}";
        let sample = |rate| {
            let sample = Sample {
                units: 1.0,
                rate,
                cpu_user: 1.0,
                nodes: 1,
                ..Sample::default()
            };
            Some(sample)
        };
        let series = |peer: &str| Series {
            work: "bulk-up".to_owned(),
            unit: "GiB".to_owned(),
            peer: peer.to_owned(),
            condition: String::new(),
            samples: vec![sample(1.0), sample(2.0), None],
            errors: Vec::new(),
        };
        let outcome = Outcome {
            format: 1,
            experiment: serde_saphyr::from_str(text).unwrap(),
            date: "2026-01-31".to_owned(),
            machine: crate::machine::Machine::default(),
            took: 1.0,
            series: vec![series("x"), series("y")],
        };
        let svg = svg(&outcome).unwrap();
        for part in ["bulk-up, CPU s/GiB", "bulk-up, Gbit/s", "a: k (2026-01-31)"] {
            assert!(svg.contains(part), "{part}");
        }
        // Two rounds and a median, two values, two panels.
        assert_eq!(svg.matches("<circle").count(), 12);
    }
}
