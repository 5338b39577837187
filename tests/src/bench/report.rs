//! What was measured and which bars are met, as text and as JSON.

use serde_json::{Value, json};

use super::measure::Measured;

/// A limit of ours.
#[derive(Debug, Clone)]
pub struct Bar {
    what: String,
    value: f64,
    limit: f64,
    at_most: bool,
    /// Whether a miss fails the benchmark; else the figure is for information.
    judged: bool,
}

impl Bar {
    pub fn at_most(what: &str, value: f64, limit: f64, judged: bool) -> Self {
        Self { what: what.into(), value, limit, at_most: true, judged }
    }

    pub fn at_least(what: &str, value: f64, limit: f64, judged: bool) -> Self {
        Self { what: what.into(), value, limit, at_most: false, judged }
    }

    fn is_met(&self) -> bool {
        if self.at_most { self.value <= self.limit } else { self.value >= self.limit }
    }
}

/// Rows in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<(String, Measured)>,
    bars: Vec<Bar>,
}

impl Report {
    pub fn add(&mut self, name: &str, measured: &Measured) {
        eprintln!("  {name}: {:.1} ms, CPU {:.1} ms", measured.wall_ms, measured.cpu_ms);
        self.rows.push((name.into(), measured.clone()));
    }

    pub fn bar(&mut self, bar: Bar) {
        self.bars.push(bar);
    }

    /// Whether no judged bar is missed.
    pub fn is_met(&self) -> bool {
        self.bars.iter().all(|bar| bar.is_met() || !bar.judged)
    }

    /// Two Markdown tables.
    pub fn to_markdown(&self) -> String {
        let mut text =
            String::from("| what | wall ms (median) | CPU ms | peak MB | per second |\n|---|--:|--:|--:|--:|\n");
        for (name, Measured { wall_ms, cpu_ms, peak_kib, per_second }) in &self.rows {
            let peak = *peak_kib as f64 * 1.024e-3;
            text += &format!("| {name} | {wall_ms:.1} | {cpu_ms:.1} | {peak:.1} | {per_second:.1} |\n");
        }
        text += "\n| bar | limit | measured | |\n|---|--:|--:|---|\n";
        for bar in &self.bars {
            let sign = if bar.at_most { "≤" } else { "≥" };
            let verdict = match (bar.judged, bar.is_met()) {
                (false, _) => "for information",
                (true, true) => "met",
                (true, false) => "**missed**",
            };
            text += &format!("| {} | {sign} {} | {:.3} | {verdict} |\n", bar.what, bar.limit, bar.value);
        }
        text
    }

    pub fn to_json(&self) -> Value {
        let row = |(name, measured): &(String, Measured)| {
            let mut value = measured.to_json();
            value["name"] = json!(name);
            value
        };
        let bar = |bar: &Bar| json!({"what": bar.what, "value": bar.value, "limit": bar.limit, "at_most": bar.at_most, "judged": bar.judged, "met": bar.is_met()});
        json!({"rows": self.rows.iter().map(row).collect::<Vec<_>>(), "bars": self.bars.iter().map(bar).collect::<Vec<_>>()})
    }
}
