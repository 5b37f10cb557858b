//! libsodium sealed boxes for GitHub.
