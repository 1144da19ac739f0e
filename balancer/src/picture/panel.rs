//! Panels above each other on one time axis: frame, legend, and the shapes in them.

use super::{Axis, LEFT, Node, RIGHT, WIDTH, label, line, rect};

/// A panel: where it is and how values map to it.
pub(crate) struct Panel {
    pub(crate) top: f64,
    pub(crate) height: f64,
    axis: Axis,
}

impl Panel {
    /// A panel from its top and height.
    pub(crate) fn new((top, height): (f64, f64), axis: Axis) -> Self {
        Self { top, height, axis }
    }

    /// Its lower edge.
    pub(crate) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// Where a value is.
    pub(crate) fn y(&self, value: f64) -> f64 {
        self.bottom() - self.axis.share(value) * self.height
    }

    /// Name, legend, lines and labels of the value axis.
    pub(crate) fn frame(&self, name: &str, legend: &[(&str, &str)], value: impl Fn(f64) -> String) -> Node {
        let end = WIDTH - RIGHT;
        let faint = self
            .axis
            .between()
            .into_iter()
            .map(|tick| line("faint", (LEFT, self.y(tick)), (end, self.y(tick))));
        let ticks = self.axis.ticks.iter().flat_map(|tick| {
            let y = self.y(*tick);
            [line("grid", (LEFT, y), (end, y)), label("value", LEFT - 10.0, y + 4.0, &value(*tick))]
        });
        let frame = Node::group("frame").children(faint).children(ticks);
        frame.child(label("name", LEFT, self.top - 12.0, name)).children(legend_of(self.top - 12.0, legend))
    }
}

/// Swatches and words, right-aligned above a panel.
fn legend_of(y: f64, entries: &[(&str, &str)]) -> Vec<Node> {
    let mut right = WIDTH - RIGHT;
    let mut nodes = Vec::new();
    for (class, words) in entries.iter().rev() {
        // Text is at most 7 pixels a character at this size.
        let start = right - 7.0 * words.chars().count() as f64;
        nodes.push(label("key", right, y, words));
        nodes.push(swatch(class, start - 16.0, y - 4.0));
        right = start - 38.0;
    }
    nodes
}

/// A small picture of what the class looks like in its panel, 18 pixels wide.
fn swatch(class: &str, x: f64, middle: f64) -> Node {
    match class {
        "grow" => triangle(class, x + 4.0, middle, true),
        "shrink" => triangle(class, x + 4.0, middle, false),
        "birth" => Node::new("circle").class(class).num("cx", x + 4.0).num("cy", middle).num("r", 4.0),
        "offered" | "ready" | "failed" => rect(class, x - 8.0, middle - 5.0, 18.0, 9.0),
        _ => line(class, (x - 8.0, middle), (x + 10.0, middle)),
    }
}

/// A triangle around a middle, pointing up or down.
pub(crate) fn triangle(class: &str, x: f64, middle: f64, up: bool) -> Node {
    let (tip, foot) = if up { (middle - 7.0, middle + 4.0) } else { (middle + 7.0, middle - 4.0) };
    let points = format!("{x:.1},{tip:.1} {:.1},{foot:.1} {:.1},{foot:.1}", x - 6.0, x + 6.0);
    Node::new("polygon").class(class).attr("points", &points)
}

/// The corners of a step curve; the last value holds until `end`.
pub(crate) fn steps(values: &[(f64, u32)], end: f64) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::new();
    let mut last = None;
    for (at, value) in values {
        let value = f64::from(*value);
        if last != Some(value) {
            corners.extend(last.map(|before| (*at, before)));
            corners.push((*at, value));
            last = Some(value);
        }
    }
    corners.extend(last.map(|value| (end, value)));
    corners
}
