//! Colours and type of the picture, for light and dark readers.

/// The style sheet. Every colour is set twice; renderers that know no media
/// queries show the light one.
pub(crate) const STYLE: &str = "
text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;font-size:12px;fill:#57606a}
.title{font-size:21px;font-weight:600;fill:#1f2328}
.subtitle{font-size:13px}
.figure{font-size:22px;font-weight:600;fill:#1f2328}
.name{font-size:13px;font-weight:600;fill:#1f2328}
.value,.axis{text-anchor:end;font-size:11px}
.key{text-anchor:end}
.seconds,.trace{text-anchor:middle;font-size:11px}
.ms,.change{font-size:10.5px;text-anchor:middle}
.note{font-size:11px;font-style:italic}
.ground{fill:#ffffff}
.after{fill:#eaeef2;opacity:.55}
line{stroke-width:1}
.grid{stroke:#d0d7de}
.faint{stroke:#eaeef2}
.tick{stroke:#8c959f}
path{fill:none;stroke-linejoin:round}
.offered{fill:#afb8c1;opacity:.5;stroke:none}
.served{stroke:#0969da;stroke-width:1.8}
.failed{fill:#cf222e;stroke:none}
.bad{fill:#cf222e}
.ready{fill:#2da44e;opacity:.32;stroke:none}
.ready-edge{stroke:#1a7f37;stroke-width:1.5}
.desired{stroke:#bc4c00;stroke-width:1.6;stroke-dasharray:5 3}
.grow{fill:#bc4c00}
.shrink{fill:#57606a}
.hold{stroke:#afb8c1}
.stem{stroke:#8250df;opacity:.45}
.birth{fill:#8250df}
.p95{stroke:#bf3989;stroke-width:1.6}
.p50{stroke:#0a7f8f;stroke-width:1.6}
@media (prefers-color-scheme:dark){
text{fill:#9198a1}
.title,.figure,.name{fill:#f0f6fc}
.ground{fill:#0d1117}
.after{fill:#21262d}
.grid{stroke:#30363d}
.faint{stroke:#1c2128}
.tick{stroke:#6e7681}
.offered{fill:#6e7681}
.served{stroke:#4493f8}
.failed,.bad{fill:#ff7b72}
.ready{fill:#3fb950}
.ready-edge{stroke:#3fb950}
.desired{stroke:#f0883e}
.grow{fill:#f0883e}
.shrink{fill:#9198a1}
.hold{stroke:#484f58}
.stem{stroke:#ab7df8}
.birth{fill:#ab7df8}
.p95{stroke:#f778ba}
.p50{stroke:#39c5cf}
}
";
