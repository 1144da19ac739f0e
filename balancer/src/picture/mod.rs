//! Pictures of runs: panels on one time axis, as SVG text. Pure.

mod axis;
mod marks;
mod panel;
mod style;
mod svg;

pub(crate) use axis::{Axis, time_step};
pub(crate) use marks::{LABEL_HEIGHT, Room, decision_marks};
pub(crate) use panel::{Panel, steps, triangle};
pub(crate) use style::STYLE;
pub(crate) use svg::{Node, area, label, line, path, rect};

/// Width of a picture, and the room beside its panels, pixels.
pub(crate) const WIDTH: f64 = 1200.0;
pub(crate) const LEFT: f64 = 84.0;
pub(crate) const RIGHT: f64 = 32.0;
