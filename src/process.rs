//! Child processes, passed in: the only place that starts or signals one.
//! (Filled in by the change that brings the `local` provider's services.)
