//! State in a directory.
