//! What may be said to a store before it is used: the same for all that are kept outside this process.

/// Gives a store with the fields `key`, `codec` and `renewal` the methods that set them; with
/// `neighbours`, that field too.
macro_rules! adjustable {
    ($store:ident) => {
        impl $store {
            /// Uses this state key; none is then kept, made or looked for in the store.
            #[must_use]
            pub fn with_key(mut self, key: [u8; 32]) -> Self {
                self.codec = self.codec.with_key(&key, false);
                self.key = Some(zeroize::Zeroizing::new(key));
                self
            }

            /// Encrypts whole records with this key, which is given anew at every start and never
            /// kept beside them. Values inside records stay sealed with the state key as ever.
            #[must_use]
            pub fn with_encryption(mut self, key: &[u8; 32]) -> Self {
                self.codec = self.codec.with_key(key, true);
                self
            }

            /// Reads and writes as `other` does: with the same key, which both have from outside.
            fn like(mut self, other: &Self) -> Self {
                self.codec = self.codec.like(&other.codec);
                self.key.clone_from(&other.key);
                self.renewal = other.renewal;
                self
            }

            /// Another lease length, for unusually slow storage and for tests.
            #[must_use]
            pub fn with_renewal(mut self, renewal: $crate::state::Renewal) -> Self {
                self.renewal = renewal;
                self
            }
        }
    };
    ($store:ident, neighbours) => {
        $crate::state::terms::adjustable!($store);

        impl $store {
            /// Takes the lock of a run that is certain to have ended on this machine at once.
            #[must_use]
            pub fn with_neighbours(mut self, neighbours: $crate::state::lease::Neighbours) -> Self {
                self.neighbours = neighbours;
                self
            }
        }
    };
}

pub(crate) use adjustable;
