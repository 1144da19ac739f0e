//! Marks of decisions on a time axis, and labels that keep out of each other's way.

use super::{LEFT, Node, RIGHT, WIDTH, label, line, triangle};
use crate::admin::status::DecisionStatus;

/// Height that a label needs to be readable, pixels.
pub(crate) const LABEL_HEIGHT: f64 = 12.0;

/// One mark per decision, from its place, its time in seconds and itself: up for grow, down for
/// shrink, a faint line for hold. The reason is a tooltip.
pub(crate) fn decision_marks<'a>(
    (top, height): (f64, f64),
    made: impl Iterator<Item = (f64, f64, &'a DecisionStatus)>,
) -> Node {
    let (middle, below) = (top + height / 2.0, top + height + 10.0);
    let mut taken = Room::default();
    let mut marks = Vec::new();
    for (x, at, decision) in made {
        let shape = match decision.action.as_str() {
            "grow" => triangle("grow", x, middle, true),
            "shrink" => triangle("shrink", x, middle, false),
            _ => line("hold", (x, middle - 3.0), (x, middle + 3.0)),
        };
        marks.push(shape.title(&reason(at, decision)));
        let change = i64::from(decision.to) - i64::from(decision.from);
        let sign = if change > 0 { '+' } else { '\u{2212}' };
        if change != 0 && taken.take(x, below, 20.0, LABEL_HEIGHT) {
            marks.push(label("change", x, below, &format!("{sign}{}", change.abs())));
        }
    }
    let name = label("axis", LEFT - 10.0, middle + 4.0, "decisions");
    let base = line("grid", (LEFT, middle), (WIDTH - RIGHT, middle));
    Node::group("decisions").child(name).child(base).children(marks)
}

fn reason(at: f64, decision: &DecisionStatus) -> String {
    let DecisionStatus { action, from, to, reason, .. } = decision;
    format!("{at:.1} s: {action} {from} to {to}: {reason}")
}

/// Room that marks and labels have taken: middle, bottom, width, height.
#[derive(Default)]
pub(crate) struct Room(Vec<[f64; 4]>);

impl Room {
    pub(crate) fn occupy(&mut self, x: f64, bottom: f64, width: f64, height: f64) {
        self.0.push([x, bottom, width, height]);
    }

    /// Takes room for a label unless something else is there.
    pub(crate) fn take(&mut self, x: f64, bottom: f64, width: f64, height: f64) -> bool {
        let free = self.0.iter().all(|[a, b, w, h]| {
            let beside = (x - a).abs() >= (width + w) / 2.0;
            beside || bottom <= b - h || *b <= bottom - height
        });
        if free {
            self.occupy(x, bottom, width, height);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_would_overlap_are_left_out() {
        let mut room = Room::default();
        assert!(room.take(0.0, 12.0, 44.0, 12.0));
        assert!(!room.take(20.0, 17.0, 44.0, 12.0));
        assert!(room.take(20.0, 32.0, 44.0, 12.0));
        assert!(room.take(50.0, 12.0, 44.0, 12.0));
    }
}
