//! What came out: violations, numbers, and how they are printed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// How many violations are spelled out.
const SPELLED_OUT: usize = 20;

#[derive(Default)]
struct Found {
    first: Vec<Value>,
    by_kind: BTreeMap<&'static str, usize>,
}

/// What must not be, and was.
#[derive(Default)]
pub struct Violations(Mutex<Found>);

impl Violations {
    /// Notes one. The first are printed at once.
    pub fn add(&self, kind: &'static str, what: impl Into<String>) {
        let what = what.into();
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *found.by_kind.entry(kind).or_default() += 1;
        if found.first.len() < SPELLED_OUT {
            eprintln!("VIOLATION {kind}: {what}");
            found.first.push(json!({"kind": kind, "what": what}));
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).by_kind.values().sum()
    }
}

/// The figures of a run, in the order in which they are printed.
#[derive(Default)]
pub struct Report(Vec<(&'static str, Value)>);

impl Report {
    /// Adds a number under its name.
    pub fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name, value.into()));
    }

    /// A table on standard error and, if `json`, one JSON object on standard output.
    pub fn print(self, violations: &Violations, json: bool) {
        let found = violations.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = found.by_kind.values().sum();
        eprintln!();
        for (name, value) in &self.0 {
            eprintln!("  {name:<24} {value}");
        }
        eprintln!("  {:<24} {total}", "violations");
        for (kind, count) in &found.by_kind {
            eprintln!("    {kind:<22} {count}");
        }
        if !json {
            return;
        }
        let mut object: serde_json::Map<String, Value> =
            self.0.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let violations = json!({"total": total, "byKind": found.by_kind, "first": found.first});
        object.insert("violations".into(), violations);
        println!("{}", Value::Object(object));
    }
}
