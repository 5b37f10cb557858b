//! The embedded `local` provider.
