//! Plots of slow start and of keys that move, as SVG.

use std::fmt::Write as _;

use super::hashes::METHODS;
use super::moves::Moved;
use super::ramp::{RAMPS, Sample};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 60.0;
const PLOT_WIDTH: f64 = 620.0;
const PLOT_HEIGHT: f64 = 260.0;
const COLORS: [&str; 4] = ["#2f6f4f", "#c2622d", "#2d6fc2", "#8a4fae"];
const IDEAL: &str = "#000000";

/// Axes and what is drawn between them. Points are given as parts of the axes, 0 to 1.
struct Plot(String);

impl Plot {
    fn new(title: &str, x_label: &str) -> Self {
        let mut plot = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        ));
        plot.text(LEFT, 20.0, "start", title);
        plot.text(LEFT + PLOT_WIDTH / 2.0, HEIGHT - 10.0, "middle", x_label);
        plot.element(&format!(
            "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{PLOT_WIDTH}\" height=\"{PLOT_HEIGHT}\" fill=\"none\" stroke=\"#888\"/>"
        ));
        plot
    }

    fn element(&mut self, element: &str) {
        let _infallible = writeln!(self.0, "{element}");
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        self.element(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn x_tick(&mut self, part: f64, label: &str) {
        self.text(
            LEFT + part * PLOT_WIDTH,
            TOP + PLOT_HEIGHT + 16.0,
            "middle",
            label,
        );
    }

    fn y_tick(&mut self, part: f64, label: &str) {
        let y = TOP + (1.0 - part) * PLOT_HEIGHT;
        let right = LEFT + PLOT_WIDTH;
        self.element(&format!(
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"
        ));
        self.text(LEFT - 5.0, y + 4.0, "end", label);
    }

    fn key(&mut self, place: usize, color: &str, name: &str) {
        let x = LEFT + 180.0 * place as f64;
        self.element(&format!(
            "<rect x=\"{x}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{color}\"/>"
        ));
        self.text(x + 17.0, 44.0, "start", name);
    }

    fn line(&mut self, color: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            let (x, y) = (LEFT + x * PLOT_WIDTH, TOP + (1.0 - y) * PLOT_HEIGHT);
            let _infallible = write!(path, "{x:.1},{y:.1} ");
        }
        let path = path.trim_end();
        self.element(&format!(
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.2\"/>"
        ));
    }

    fn dots(&mut self, color: &str, points: impl Iterator<Item = (f64, f64)>) {
        for (x, y) in points {
            let (x, y) = (LEFT + x * PLOT_WIDTH, TOP + (1.0 - y) * PLOT_HEIGHT);
            self.element(&format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{color}\"/>"
            ));
        }
    }

    fn end(self) -> String {
        self.0 + "</svg>\n"
    }
}

/// Share of the peer that came up, over time: dots are measured, lines are the curves of the config.
pub(super) fn ramps(curves: &[Vec<Sample>]) -> String {
    const WINDOWS: f64 = 1.3;
    const MOST: f64 = 0.3;
    let title = "Slow start: share of a peer that comes up beside three others (dots: measured; lines: the config's curves)";
    let mut plot = Plot::new(title, "time since it came up, in windows");
    for percent in [0, 5, 10, 15, 20, 25, 30] {
        plot.y_tick(f64::from(percent) / 100.0 / MOST, &format!("{percent} %"));
    }
    for tenths in [0, 2, 4, 6, 8, 10, 12] {
        let at = f64::from(tenths) / 10.0;
        plot.x_tick(at / WINDOWS, &format!("{at}"));
    }
    for ramp in &RAMPS[..2] {
        let points = (0..=260).map(|n| f64::from(n) / 200.0);
        plot.line(
            IDEAL,
            points.map(|at| (at / WINDOWS, ramp.ideal(at) / MOST)),
        );
    }
    for (place, (ramp, samples)) in RAMPS.iter().zip(curves).enumerate() {
        plot.key(place, COLORS[place], ramp.name);
        let points = samples.iter().filter(|sample| sample.at <= WINDOWS);
        plot.dots(
            COLORS[place],
            points.map(|it| (it.at / WINDOWS, it.share / MOST)),
        );
    }
    plot.end()
}

/// Keys that moved when one of n peers left, by method and n, both axes logarithmic.
pub(super) fn moves(all: &[Vec<Moved>]) -> String {
    let title = "Keys that move when 1 of n peers leaves (dots: measured; line: 1/n)";
    let mut plot = Plot::new(title, "peers before it leaves");
    let x = |peers: f64| peers.ln() / 100_f64.ln();
    let y = |share: f64| 1.0 + share.log10() / 2.0;
    for percent in [1, 2, 5, 10, 20, 50, 100] {
        plot.y_tick(y(f64::from(percent) / 100.0), &format!("{percent} %"));
    }
    for peers in [1, 2, 3, 5, 10, 20, 50, 100] {
        plot.x_tick(x(f64::from(peers)), &peers.to_string());
    }
    let ends = [1.0, 100.0].into_iter();
    plot.line(IDEAL, ends.map(|peers| (x(peers), y(1.0 / peers))));
    for (place, (method, moved)) in METHODS.iter().zip(all).enumerate() {
        plot.key(place, COLORS[place], method.name);
        let points = moved
            .iter()
            .map(|it| (x(it.peers as f64), y(it.share.max(0.01))));
        plot.dots(COLORS[place], points);
    }
    plot.end()
}
