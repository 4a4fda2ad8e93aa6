//! What a server knows of a replica: its latest version, who pushes it, who follows it.

use serde_json::Value;

use super::Run;
use super::rest::Rest;
use crate::error::Error;
use crate::outcome::{print_json, print_line};
use crate::plan::Status;

pub fn show(run: &Run, plan: &Status) -> Result<(), Error> {
    run.warn_of_plain_text(&plan.access);
    let answer: Value = Rest::new(&plan.access)?.get(&plan.remote, "status", &[])?;
    if run.output.json {
        return print_json(&answer);
    }
    let latest = answer["latest"].as_u64().map_or("none".to_owned(), |latest| latest.to_string());
    print_line(&format!("{}: latest version {latest}", plan.remote))
}
