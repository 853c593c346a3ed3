//! Lines in SVG.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// A plot of lines; both axes begin at 0.
pub(super) struct Plot {
    pub(super) title: String,
    /// Unit and end of the axis.
    pub(super) x: (&'static str, f64),
    pub(super) y: &'static str,
    pub(super) lines: Vec<Line>,
}

pub(super) struct Line {
    name: &'static str,
    color: &'static str,
    points: Vec<(f64, f64)>,
    width: f64,
}

impl Line {
    pub(super) fn new(name: &'static str, color: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self {
            name,
            color,
            points,
            width: 2.5,
        }
    }

    pub(super) fn thin(mut self) -> Self {
        self.width = 1.0;
        self
    }
}

/// Writes the plot into the folder that `CASTLING_PLOTS` names, if it does.
pub(super) fn save(name: &str, plot: &Plot) {
    write(name, &plot.svg());
}

/// Writes an SVG into the folder that `CASTLING_PLOTS` names, if it does.
pub(super) fn write(name: &str, svg: &str) {
    let Some(folder) = std::env::var_os("CASTLING_PLOTS") else {
        return;
    };
    let file = Path::new(&folder).join(format!("{name}.svg"));
    std::fs::write(&file, svg).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

/// Events a second, at the middle of each half of a second.
pub(super) fn a_second(events: impl Iterator<Item = Duration>) -> Vec<(f64, f64)> {
    let mut counts: Vec<u32> = Vec::new();
    for at in events {
        let idx = (at.as_secs_f64() / BUCKET) as usize;
        counts.resize(counts.len().max(idx + 1), 0);
        counts[idx] += 1;
    }
    let points = counts.iter().enumerate();
    points
        .map(|(idx, count)| ((idx as f64 + 0.5) * BUCKET, f64::from(*count) / BUCKET))
        .collect()
}

const BUCKET: f64 = 0.5;

impl Plot {
    fn svg(&self) -> String {
        let most = self
            .lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|point| point.1)
            .fold(1.0, f64::max);
        let (step, top) = steps(most);
        let height = TOP + HEIGHT + BELOW + self.lines.len() as f64 * ROW;
        let width = LEFT + WIDTH + 20.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        text(&mut svg, LEFT, 20.0, "start", &self.title);
        let x_of = |x: f64| LEFT + WIDTH * x / self.x.1;
        let y_of = |y: f64| TOP + HEIGHT * (1.0 - y / top);
        let mut y = 0.0;
        while y <= top + step / 2.0 {
            let at = y_of(y);
            let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}h{WIDTH}\" stroke=\"#ddd\"/>");
            text(&mut svg, LEFT - 6.0, at + 4.0, "end", &format!("{y:.0}"));
            y += step;
        }
        text(&mut svg, LEFT - 6.0, TOP - 8.0, "end", self.y);
        let (step, _) = steps(self.x.1);
        let mut x = 0.0;
        while x <= self.x.1 {
            text(
                &mut svg,
                x_of(x),
                TOP + HEIGHT + 16.0,
                "middle",
                &format!("{x:.0}"),
            );
            x += step;
        }
        text(&mut svg, LEFT + WIDTH, TOP + HEIGHT + 30.0, "end", self.x.0);
        for (row, line) in self.lines.iter().enumerate() {
            let points = line.points.iter().filter(|(x, _)| *x <= self.x.1);
            let points: Vec<String> = points
                .map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y)))
                .collect();
            let (color, width) = (line.color, line.width);
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"/>",
                points.join(" ")
            );
            let y = TOP + HEIGHT + BELOW + row as f64 * ROW;
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {y}h24\" stroke=\"{color}\" stroke-width=\"{width}\"/>"
            );
            text(&mut svg, LEFT + 32.0, y + 4.0, "start", line.name);
        }
        svg + "</svg>\n"
    }
}

/// A round step of an axis, and its end: four to ten steps.
fn steps(most: f64) -> (f64, f64) {
    let decade = 10_f64.powf((most / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    let step = step
        .into_iter()
        .find(|step| most / step <= 10.0)
        .unwrap_or(decade * 10.0);
    (step, (most / step).ceil() * step)
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

const LEFT: f64 = 60.0;
const TOP: f64 = 50.0;
const WIDTH: f64 = 700.0;
const HEIGHT: f64 = 260.0;
/// Room for the axis' numbers, and for each line's name.
const BELOW: f64 = 48.0;
const ROW: f64 = 18.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_steps() {
        assert_eq!(steps(840.0), (100.0, 900.0));
        assert_eq!(steps(30.0), (5.0, 30.0));
        assert_eq!(steps(1.0), (0.1, 1.0));
    }

    #[test]
    fn events_are_counted_a_second() {
        let events = [0.1, 0.2, 0.6, 1.7].map(Duration::from_secs_f64);
        let points = a_second(events.into_iter());
        assert_eq!(points, [(0.25, 4.0), (0.75, 2.0), (1.25, 0.0), (1.75, 2.0)]);
    }
}
