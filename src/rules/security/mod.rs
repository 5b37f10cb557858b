//! Where a config, or a plan, opens what should be closed.

mod blast_radius;
mod cidr_widening;
mod firewall;
mod internal_names;
mod literal_secrets;
mod protected_replace;
mod public_state;
mod registry_retention;
mod regression;
mod trusted_sources;

use super::Rule;

pub(super) static RULES: [Rule; 10] = [
    firewall::RULE,
    trusted_sources::RULE,
    internal_names::RULE,
    literal_secrets::RULE,
    protected_replace::RULE,
    regression::RULE,
    cidr_widening::RULE,
    public_state::RULE,
    registry_retention::RULE,
    blast_radius::RULE,
];
