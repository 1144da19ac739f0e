//! Just enough SVG: nodes with attributes, escaped text, short numbers.

use std::fmt::Write;

/// An element, built from the outside in.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    tag: &'static str,
    attributes: String,
    body: String,
}

impl Node {
    pub(crate) fn new(tag: &'static str) -> Self {
        Self { tag, attributes: String::new(), body: String::new() }
    }

    /// A group.
    pub(crate) fn group(class: &str) -> Self {
        Self::new("g").attr("class", class)
    }

    pub(crate) fn attr(mut self, name: &str, value: &str) -> Self {
        let _ = write!(self.attributes, " {name}=\"{}\"", escaped(value));
        self
    }

    pub(crate) fn num(self, name: &str, value: f64) -> Self {
        self.attr(name, &number(value))
    }

    pub(crate) fn class(self, class: &str) -> Self {
        self.attr("class", class)
    }

    /// Text content; may follow children.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.body.push_str(&escaped(text));
        self
    }

    /// A tooltip.
    pub(crate) fn title(self, text: &str) -> Self {
        self.child(Self::new("title").text(text))
    }

    pub(crate) fn child(mut self, child: Self) -> Self {
        child.write(&mut self.body);
        self
    }

    pub(crate) fn children(self, children: impl IntoIterator<Item = Self>) -> Self {
        children.into_iter().fold(self, Self::child)
    }

    fn write(&self, out: &mut String) {
        let Self { tag, attributes, body } = self;
        let line = if *tag == "g" && !body.is_empty() { "\n" } else { "" };
        let _ = match body.as_str() {
            "" => writeln!(out, "<{tag}{attributes}/>"),
            body => writeln!(out, "<{tag}{attributes}>{line}{body}</{tag}>"),
        };
    }

    /// The whole picture; `style` is trusted.
    pub(crate) fn document(width: f64, height: f64, label: &str, style: &str, children: Vec<Self>) -> String {
        let root = Self::new("svg")
            .attr("xmlns", "http://www.w3.org/2000/svg")
            .attr("viewBox", &format!("0 0 {} {}", number(width), number(height)))
            .num("width", width)
            .num("height", height)
            .attr("role", "img")
            .title(label);
        let mut style_node = Self::new("style");
        style_node.body = style.to_owned();
        let mut out = String::new();
        root.child(style_node).children(children).write(&mut out);
        out
    }
}

pub(crate) fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> Node {
    Node::new("line").class(class).num("x1", from.0).num("y1", from.1).num("x2", to.0).num("y2", to.1)
}

pub(crate) fn rect(class: &str, x: f64, y: f64, width: f64, height: f64) -> Node {
    Node::new("rect").class(class).num("x", x).num("y", y).num("width", width).num("height", height)
}

/// Text; the class decides alignment and size.
pub(crate) fn label(class: &str, x: f64, y: f64, text: &str) -> Node {
    Node::new("text").class(class).num("x", x).num("y", y).text(text)
}

/// A path through points.
pub(crate) fn path(class: &str, points: &[(f64, f64)]) -> Node {
    Node::new("path").class(class).attr("d", &moves(points))
}

/// A filled shape between a line and a horizontal base.
pub(crate) fn area(class: &str, points: &[(f64, f64)], base: f64) -> Node {
    let ends = points.first().zip(points.last());
    let outline = ends.map_or_else(String::new, |(first, last)| {
        let foot = [(last.0, base), (first.0, base)];
        moves(points) + &foot.map(|(x, y)| format!("L{} {}", number(x), number(y))).concat() + "Z"
    });
    Node::new("path").class(class).attr("d", &outline)
}

fn moves(points: &[(f64, f64)]) -> String {
    let mut d = String::new();
    for (i, (x, y)) in points.iter().enumerate() {
        let _ = write!(d, "{}{} {}", if i == 0 { 'M' } else { 'L' }, number(*x), number(*y));
    }
    d
}

/// A tenth of a pixel is enough.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    let short = text.strip_suffix(".0").unwrap_or(&text);
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Control characters are not allowed in XML, not even escaped.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_leave_its_element() {
        let text = Node::new("text").attr("a", "\"<>").text("<script>&\u{0}");
        let mut out = String::new();
        text.write(&mut out);
        assert_eq!(out, "<text a=\"&quot;&lt;&gt;\">&lt;script&gt;&amp; </text>\n");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([1.0, 0.25, -0.04, 12.34].map(number), ["1", "0.2", "0", "12.3"]);
    }

    #[test]
    fn an_area_is_closed_along_its_base() {
        let mut out = String::new();
        area("a", &[(0.0, 5.0), (10.0, 2.0)], 9.0).write(&mut out);
        assert_eq!(out, "<path class=\"a\" d=\"M0 5L10 2L10 9L0 9Z\"/>\n");
    }
}
