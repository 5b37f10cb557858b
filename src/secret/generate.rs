//! Values made here: random_hex, random_base64, random_alphanumeric (`config.md` secrets).
