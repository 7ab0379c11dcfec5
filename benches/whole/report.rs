//! What comes out: a table for people, JSON for programs.

use serde_json::{Value, json};

/// A bar that a figure is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    /// None was set.
    None,
    /// At most this many times the floor.
    Ratio(f64),
    /// At least this share of the floor.
    Share(f64),
    /// At most this much above the floor.
    Above(f64),
    /// At most this much.
    AtMost(f64),
}

/// One figure: ours and the floor of every round.
pub(crate) struct Row {
    name: String,
    unit: &'static str,
    ours: Vec<f64>,
    floor: Vec<f64>,
    bar: Bar,
    /// Whether more is better.
    more: bool,
}

/// All figures.
pub(crate) struct Report {
    reps: usize,
    rows: Vec<Row>,
}

fn sorted(list: &[f64]) -> Vec<f64> {
    let mut list = list.to_vec();
    list.sort_by(f64::total_cmp);
    list
}

/// The value below which this share of the list lies.
pub(crate) fn quantile(list: &[f64], share: f64) -> f64 {
    let list = sorted(list);
    let at = ((list.len().max(1) - 1) as f64 * share).round() as usize;
    list.get(at).copied().unwrap_or(f64::NAN)
}

impl Row {
    fn best(&self, list: &[f64]) -> f64 {
        quantile(list, if self.more { 1.0 } else { 0.0 })
    }

    /// What the bar says, and whether it is met, of these two figures.
    fn verdict(&self, ours: f64, floor: f64) -> Option<(String, bool)> {
        Some(match self.bar {
            Bar::None => return None,
            Bar::Ratio(most) => (format!("≤ {most} × floor"), ours <= most * floor),
            Bar::Share(least) => (format!("≥ {:.0} % of floor", least * 100.0), ours >= least * floor),
            Bar::Above(most) => (format!("≤ floor + {most} {}", self.unit), ours <= floor + most),
            Bar::AtMost(most) => (format!("≤ {most} {}", self.unit), ours <= most),
        })
    }
}

impl Report {
    pub(crate) fn new(reps: usize) -> Self {
        Self { reps, rows: Vec::new() }
    }

    fn add(&mut self, row: Row) {
        let show = |list: &[f64]| list.iter().map(|v| format!("{v:.2}")).collect::<Vec<_>>().join(" ");
        eprintln!("  {}: {} {}; floor {}", row.name, show(&row.ours), row.unit, show(&row.floor));
        self.rows.push(row);
    }

    /// Less is better. The floor may be empty.
    pub(crate) fn less(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        ours: Vec<f64>,
        floor: Vec<f64>,
        bar: Bar,
    ) {
        self.add(Row { name: name.into(), unit, ours, floor, bar, more: false });
    }

    /// More is better.
    pub(crate) fn more(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        ours: Vec<f64>,
        floor: Vec<f64>,
        bar: Bar,
    ) {
        self.add(Row { name: name.into(), unit, ours, floor, bar, more: true });
    }

    pub(crate) fn print(&self) {
        println!(
            "{:<44} {:>10} {:>10} {:>10} {:>10} {:>7}  {:<22} verdict",
            "measure", "best", "median", "floor best", "median", "ratio", "bar"
        );
        for row in &self.rows {
            let (best, median) = (row.best(&row.ours), quantile(&row.ours, 0.5));
            let figure = |v: f64| if v.is_nan() { "-".to_owned() } else { format!("{v:.2}") };
            let (floor, floor_median) = (row.best(&row.floor), quantile(&row.floor, 0.5));
            let (bar, verdict) = match row.verdict(best, floor) {
                None => (String::new(), String::new()),
                Some((bar, met)) => {
                    let typical = row.verdict(median, floor_median).is_some_and(|(_, met)| met);
                    let word = match (met, typical) {
                        (true, true) => "met",
                        (false, false) => "missed",
                        (true, false) => "met at best, missed by the median",
                        (false, true) => "missed at best, met by the median",
                    };
                    (bar, word.to_owned())
                }
            };
            println!(
                "{:<44} {:>10} {:>10} {:>10} {:>10} {:>7}  {bar:<22} {verdict}",
                format!("{}, {}", row.name, row.unit),
                figure(best),
                figure(median),
                figure(floor),
                figure(floor_median),
                figure(best / floor),
            );
        }
    }

    pub(crate) fn json(&self) -> String {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let verdict = row.verdict(row.best(&row.ours), row.best(&row.floor));
                json!({
                    "measure": row.name,
                    "unit": row.unit,
                    "ours": row.ours,
                    "floor": row.floor,
                    "bar": verdict.as_ref().map(|(text, _)| text),
                    "met": verdict.map(|(_, met)| met),
                })
            })
            .collect();
        format!("{:#}\n", json!({ "reps": self.reps, "figures": rows }))
    }
}
