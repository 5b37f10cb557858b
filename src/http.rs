//! The one HTTP client: timeouts, TLS on one stack, and a URL type that hides credentials.
//! (Filled in by the change that brings `deploy verify`.)
