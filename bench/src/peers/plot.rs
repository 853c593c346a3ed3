//! Bars in SVG: each peer's ratio to the first, with its quartiles.

use std::fmt::Write as _;

use super::statistics::Spread;

pub(super) struct Bar {
    pub(super) label: String,
    pub(super) ratio: Spread,
    /// A bar of ours.
    pub(super) ours: bool,
}

/// Draws one bar below the other; the line is at 1.
pub(super) fn bars(title: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.ratio.high).fold(1.0, f64::max);
    let scale = PLOT_WIDTH / (most * 1.05);
    let height = TOP + bars.len() as f64 * ROW + 8.0;
    let width = LABEL_WIDTH + PLOT_WIDTH + VALUE_WIDTH;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    element(
        &mut svg,
        &format!(
            "<text x=\"8\" y=\"18\" font-weight=\"bold\">{}</text>",
            escaped(title)
        ),
    );
    for (row, bar) in bars.iter().enumerate() {
        draw(&mut svg, bar, TOP + row as f64 * ROW, scale);
    }
    element(
        &mut svg,
        &format!(
            "<path d=\"M{one:.1} {TOP}V{:.1}\" stroke=\"#000000\" stroke-dasharray=\"3 3\"/>",
            height - 8.0,
            one = LABEL_WIDTH + scale
        ),
    );
    svg.push_str("</svg>\n");
    svg
}

/// Draws a bar with its label, its spread and its value in the row that begins at `y`.
fn draw(svg: &mut String, bar: &Bar, y: f64, scale: f64) {
    let end = |ratio: f64| LABEL_WIDTH + ratio * scale;
    let middle = y + ROW / 2.0;
    let color = if bar.ours { "#2f6f4f" } else { "#8a9ba8" };
    let Spread { median, low, high } = bar.ratio;
    element(
        svg,
        &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LABEL_WIDTH - 8.0,
            middle + 4.5,
            escaped(&bar.label)
        ),
    );
    element(
        svg,
        &format!(
            "<rect x=\"{LABEL_WIDTH:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{color}\"/>",
            y + 4.0,
            median * scale,
            ROW - 8.0
        ),
    );
    element(
        svg,
        &format!(
            "<path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#000000\"/>",
            end(low),
            end(high)
        ),
    );
    element(
        svg,
        &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\">{median:.2}</text>",
            end(high) + 6.0,
            middle + 4.5
        ),
    );
}

fn element(svg: &mut String, element: &str) {
    let _infallible = writeln!(svg, "{element}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

// Pixels.
const LABEL_WIDTH: f64 = 250.0;
const PLOT_WIDTH: f64 = 400.0;
const VALUE_WIDTH: f64 = 60.0;
const ROW: f64 = 24.0;
const TOP: f64 = 30.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_ratio() {
        let bar = |label: &str, ratio| Bar {
            label: label.to_owned(),
            ratio: Spread {
                median: ratio,
                low: ratio,
                high: ratio,
            },
            ours: false,
        };
        let svg = bars("a & b", &[bar("nginx", 1.0), bar("other", 2.0)]);
        let width = |at: usize| -> f64 {
            let bar = svg
                .lines()
                .filter(|line| line.contains("x=\"250.0\""))
                .nth(at);
            let (_, rest) = bar.unwrap().split_once("width=\"").unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        assert!((width(1) / width(0) - 2.0).abs() < 0.01, "{svg}");
        assert!(svg.contains("a &amp; b"));
    }
}
