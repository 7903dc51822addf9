//! Figures, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Figures in the order in which they were added. Each has its unit in its name.
#[derive(Default)]
pub struct Figures(Vec<(&'static str, Value)>);

impl Figures {
    /// Adds a figure, or something else that one must know to judge the others.
    pub fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name, value.into()));
    }

    /// Adds a figure, to three digits after the point.
    pub fn add_number(&mut self, name: &'static str, value: f64) {
        self.add(name, (value * 1000.0).round() / 1000.0);
    }

    /// One figure a line.
    pub fn table(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        self.0.iter().fold(String::new(), |mut table, (name, value)| {
            // Writing to a string can't fail.
            let _ = match value {
                Value::String(text) => writeln!(table, "{name:<width$}  {text}"),
                other => writeln!(table, "{name:<width$}  {other}"),
            };
            table
        })
    }

    /// One object.
    pub fn json(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<Map<_, _>>())
    }
}
