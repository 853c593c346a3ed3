//! The figures as SVG: connections of each worker, and the tail of the latencies.

use std::fmt::Write;

use super::Measured;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 620.0;

/// Size of each panel.
const PANEL_WIDTH: f64 = 340.0;
const PANEL_HEIGHT: f64 = 200.0;
const LEFT: [f64; 2] = [60.0, 490.0];
const TOP: [f64; 2] = [70.0, 370.0];

const PER_WORKER: &str = "#c2622d";
const SHARED: &str = "#2d6fc2";

/// Quantiles of 1000 requests.
const QUANTILES: [(usize, &str); 6] = [
    (500, "p50"),
    (750, "p75"),
    (900, "p90"),
    (950, "p95"),
    (990, "p99"),
    (999, "p99.9"),
];

/// For each number of workers a row: connections opened at once on the left, latencies on the right.
pub(crate) fn svg(all: &[Measured]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for (idx, (name, color)) in [("per_worker", PER_WORKER), ("shared", SHARED)]
        .iter()
        .enumerate()
    {
        let x = LEFT[0] + 120.0 * idx as f64;
        rect(&mut svg, x, 18.0, 14.0, 14.0, color);
        text(&mut svg, x + 20.0, 30.0, "start", name);
    }
    for (pair, top) in all.chunks(2).zip(TOP) {
        bars(&mut svg, pair, top);
        curves(&mut svg, pair, top);
    }
    svg + "</svg>\n"
}

fn bars(svg: &mut String, pair: &[Measured], top: f64) {
    let workers = pair[0].workers;
    let title = format!("{workers} workers: connections of each, opened at once");
    frame(svg, LEFT[0], top, &title);
    let most = pair.iter().flat_map(|measured| &measured.at_once).max();
    let most = most.copied().unwrap_or(1).max(1) as f64;
    let step = PANEL_WIDTH / (2 * workers + 1) as f64;
    for (measured, offset) in pair.iter().zip([0.5, workers as f64 + 0.5]) {
        for (idx, count) in measured.at_once.iter().enumerate() {
            let height = PANEL_HEIGHT * 0.9 * *count as f64 / most;
            let x = LEFT[0] + step * (offset + idx as f64);
            let y = top + PANEL_HEIGHT - height;
            rect(svg, x, y, step * 0.8, height, color(measured));
            text(svg, x + step * 0.4, y - 3.0, "middle", &count.to_string());
        }
    }
}

fn curves(svg: &mut String, pair: &[Measured], top: f64) {
    let title = format!("{} workers: latency of quick requests", pair[0].workers);
    frame(svg, LEFT[1], top, &title);
    let all = pair
        .iter()
        .flat_map(|m| QUANTILES.map(|(of_1000, _)| m.quantile(of_1000)));
    let (low, high) = all.fold((f64::MAX, 1.0_f64), |(low, high), us| {
        (low.min(us), high.max(us))
    });
    // A decade or more: the tail is what is looked at.
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    let y_of = |us: f64| top + PANEL_HEIGHT * (high - us.log10()) / (high - low).max(1.0);
    let x_of = |idx: usize| {
        LEFT[1] + 20.0 + (PANEL_WIDTH - 40.0) * idx as f64 / (QUANTILES.len() - 1) as f64
    };
    let mut decade = low;
    while decade <= high {
        let y = y_of(10_f64.powf(decade));
        let (x1, x2) = (LEFT[1], LEFT[1] + PANEL_WIDTH);
        let _ = writeln!(
            svg,
            "<line x1=\"{x1}\" y1=\"{y:.1}\" x2=\"{x2}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"
        );
        let label = match decade {
            decade if decade < 3.0 => format!("{:.0} µs", 10_f64.powf(decade)),
            decade => format!("{:.0} ms", 10_f64.powf(decade - 3.0)),
        };
        text(svg, x1 - 5.0, y + 4.0, "end", &label);
        decade += 1.0;
    }
    for (idx, (_, label)) in QUANTILES.iter().enumerate() {
        text(svg, x_of(idx), top + PANEL_HEIGHT + 16.0, "middle", label);
    }
    for measured in pair {
        let mut points = String::new();
        for (idx, (of_1000, _)) in QUANTILES.iter().enumerate() {
            let _ = write!(
                points,
                "{:.1},{:.1} ",
                x_of(idx),
                y_of(measured.quantile(*of_1000))
            );
        }
        let color = color(measured);
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            points.trim_end()
        );
    }
}

fn color(measured: &Measured) -> &'static str {
    match measured.accept {
        "shared" => SHARED,
        _ => PER_WORKER,
    }
}

fn frame(svg: &mut String, x: f64, y: f64, title: &str) {
    text(svg, x, y - 12.0, "start", title);
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{PANEL_WIDTH}\" height=\"{PANEL_HEIGHT}\" fill=\"none\" stroke=\"#888\"/>"
    );
}

fn rect(svg: &mut String, x: f64, y: f64, width: f64, height: f64, color: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}
