//! Where parts of a config contradict each other, or the plan.

mod container;
mod credential_suffix;
mod exposure;
mod health;
mod migrations;
mod plan_sanity;
mod provider_validation;
mod service_dns;
mod unresolved;
mod webauthn;

use super::Rule;

pub(super) static RULES: [Rule; 10] = [
    container::RULE,
    health::RULE,
    service_dns::RULE,
    unresolved::RULE,
    migrations::RULE,
    exposure::RULE,
    plan_sanity::RULE,
    webauthn::RULE,
    credential_suffix::RULE,
    provider_validation::RULE,
];
