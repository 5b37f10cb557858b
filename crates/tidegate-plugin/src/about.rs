//! Who a plugin is.

/// Who a plugin is: what goes into its manifest and what it tells a host. Usually made by
/// [`about!`](crate::about), from the author's own `Cargo.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct About {
    /// The plugin's name: lower-case letters, digits, hyphens.
    pub name: String,
    /// Its version: three numbers, no suffix.
    pub version: String,
    /// Who made it.
    pub author: String,
    /// What it is for, in a sentence.
    pub description: String,
    /// The provider name that configs use (`provider: files`). Empty for a plugin that serves state
    /// backends only.
    pub provider: String,
    /// License, as an SPDX expression; may be empty.
    pub license: String,
    /// Where the source is; may be empty.
    pub repository: String,
    /// The oldest host it works with.
    pub min_engine_version: String,
    /// Secrets a host must hand over in the plugin's environment; nothing else of its environment
    /// needs to reach the plugin.
    pub required_secrets: Vec<RequiredSecret>,
    /// Variables a host may hand over that are no secrets: regions, endpoints, names of files.
    pub settings: Vec<String>,
    /// Config keys a host passes on; empty means the contract's usual set.
    pub canonical_keys: Vec<String>,
    /// Settings that the provider's module must have.
    pub required_keys: Vec<String>,
    /// Settings that it may have. With either list a host refuses every other before it starts the
    /// plugin; without both it knows nothing.
    pub optional_keys: Vec<String>,
}

/// A secret the plugin reads from its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredSecret {
    /// The environment variable.
    pub name: String,
    /// What it is, for the prompt that asks for it.
    pub description: String,
}

impl About {
    /// The least a plugin must say about itself.
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
        author: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            author: author.into(),
            description: description.into(),
            provider: String::new(),
            license: String::new(),
            repository: String::new(),
            min_engine_version: "0.1.0".to_owned(),
            required_secrets: Vec::new(),
            settings: Vec::new(),
            canonical_keys: Vec::new(),
            required_keys: Vec::new(),
            optional_keys: Vec::new(),
        }
    }

    /// Sets the provider name that configs use.
    #[must_use]
    pub fn provider(mut self, name: impl Into<String>) -> Self {
        self.provider = name.into();
        self
    }

    /// Sets license and repository.
    #[must_use]
    pub fn published(mut self, license: impl Into<String>, repository: impl Into<String>) -> Self {
        self.license = license.into();
        self.repository = repository.into();
        self
    }

    /// Sets the oldest host it works with.
    #[must_use]
    pub fn min_engine_version(mut self, version: impl Into<String>) -> Self {
        self.min_engine_version = version.into();
        self
    }

    /// Names a secret the plugin reads from its environment.
    #[must_use]
    pub fn requires_secret(
        mut self,
        name: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        self.required_secrets.push(RequiredSecret {
            name: name.into(),
            description: description.into(),
        });
        self
    }

    /// Names a variable the plugin reads from its environment that is no secret.
    #[must_use]
    pub fn reads_setting(mut self, name: impl Into<String>) -> Self {
        self.settings.push(name.into());
        self
    }

    /// Names a setting that the provider's module must have.
    #[must_use]
    pub fn requires_key(mut self, name: impl Into<String>) -> Self {
        self.required_keys.push(name.into());
        self
    }

    /// Names a setting that the provider's module may have.
    #[must_use]
    pub fn takes_key(mut self, name: impl Into<String>) -> Self {
        self.optional_keys.push(name.into());
        self
    }

    /// Restricts which config keys a host passes on.
    #[must_use]
    pub fn canonical_keys<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.canonical_keys = keys.into_iter().map(Into::into).collect();
        self
    }
}

/// [`About`] from the `Cargo.toml` of the crate that calls it; the argument is the provider name
/// that configs use.
#[macro_export]
macro_rules! about {
    ($provider:expr) => {
        $crate::About::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            env!("CARGO_PKG_AUTHORS"),
            env!("CARGO_PKG_DESCRIPTION"),
        )
        .provider($provider)
        .published(env!("CARGO_PKG_LICENSE"), env!("CARGO_PKG_REPOSITORY"))
    };
}
