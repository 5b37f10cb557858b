//! Where declared secrets come from: stores that can be read.
