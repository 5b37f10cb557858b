//! Small YAML files beside the config: rules and test cases. Their shapes are their readers'.

use serde::de::DeserializeOwned;

/// A value from YAML text.
///
/// # Errors
/// What the parser says, with line and column.
pub fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_yaml::from_str(text).map_err(|error| {
        let text = error.to_string();
        // The parser draws an excerpt below its sentence.
        text.lines().next().unwrap_or_default().to_owned()
    })
}
