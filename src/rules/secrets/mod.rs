//! What is odd about the credentials a config wants to be made.

mod credential_name;
mod credential_source;
mod split_credential;

use super::Rule;

pub(super) static RULES: [Rule; 3] = [
    split_credential::RULE,
    credential_name::RULE,
    credential_source::RULE,
];
