//! The form of `report.json`, for those who read it with other tools: JSON Schema, made from the fields and their documentation.

use schemars::generate::SchemaSettings;

use super::{Report, SCHEMA};

/// JSON Schema (draft 2020-12) of a report, indented.
pub fn schema() -> String {
    // As it is written: a field that is always there is required, though a reader of an older report may miss it.
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<Report>();
    schema.insert(
        "title".into(),
        format!("report.json of muhurdar-loadtest, {SCHEMA}").into(),
    );
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}
