//! What an import cannot say: which outputs are secrets. A look at the resource can.

use serde_json::Value as Json;

use super::Tools;
use super::driver::PluginDriver;
use crate::provider::Driver as _;
use crate::resource::{Address, Kind, Observed, Output, Outputs, Recorded};

/// The import with what a look at the resource says of it. What only the import says is taken for a
/// secret; so is everything when there is no look.
pub(super) async fn with_flags(
    driver: Option<&PluginDriver>,
    address: &Address,
    kind: &Kind,
    imported: Observed,
    tools: &Tools,
) -> Observed {
    let by_id = Recorded {
        provider_id: imported.provider_id.clone(),
        ..Recorded::by_name(address.clone(), kind.clone())
    };
    let seen = match driver {
        Some(driver) => driver.read(&by_id).await.ok(),
        None => None,
    };
    let Observed {
        provider_id,
        outputs: told,
        status,
        private,
    } = imported;
    let mut known = match seen {
        Some(seen) => Observed {
            provider_id,
            ..seen
        },
        None => Observed {
            provider_id,
            outputs: Outputs::new(),
            status,
            private,
        },
    };
    for (name, output) in told {
        known.outputs.entry(name).or_insert_with_key(|name| {
            let text = match output {
                Output::Public(Json::String(text)) => text,
                Output::Public(other) => other.to_string(),
                sealed @ Output::Sensitive(_) => return sealed,
            };
            let label = format!("{address}.{name}");
            Output::Sensitive(tools.masker.admit(&label, text))
        });
    }
    known
}
