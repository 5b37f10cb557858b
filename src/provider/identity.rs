//! What a provider's ids look like, so that an answer with something else in its place is caught at
//! once and not after minutes of failing calls.

/// The form of a provider's ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdFormat {
    /// Nothing is known about it.
    #[default]
    Unknown,
    /// 8-4-4-4-12 hexadecimal digits.
    Uuid,
    /// A domain name.
    DomainName,
    /// An Amazon resource name.
    Arn,
    /// Any text that is not empty.
    Freeform,
}

impl IdFormat {
    /// Whether this can be such an id.
    pub fn accepts(self, id: &str) -> bool {
        match self {
            Self::Unknown => true,
            Self::Freeform => !id.is_empty(),
            Self::Uuid => is_uuid(id),
            Self::DomainName => is_domain_name(id),
            Self::Arn => is_arn(id),
        }
    }

    /// The form in words, for messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unknown => "any text",
            Self::Uuid => "a UUID",
            Self::DomainName => "a domain name",
            Self::Arn => "an ARN",
            Self::Freeform => "text that is not empty",
        }
    }
}

fn is_uuid(id: &str) -> bool {
    let parts: Vec<&str> = id.split('-').collect();
    let lengths = [8, 4, 4, 4, 12];
    parts.len() == lengths.len()
        && parts.iter().zip(lengths).all(|(part, length)| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}

fn is_domain_name(id: &str) -> bool {
    let name = id.strip_suffix('.').unwrap_or(id);
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        })
}

fn is_arn(id: &str) -> bool {
    let parts: Vec<&str> = id.split(':').collect();
    parts.len() >= 6 && parts[0] == "arn" && !parts[1].is_empty() && !parts[2].is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_takes_its_own() {
        for (format, good, bad) in [
            (
                IdFormat::Uuid,
                "11111111-2222-3333-4444-5555aaaaBBBB",
                "orders-db",
            ),
            (IdFormat::DomainName, "a-b.example.test.", "-a.test"),
            (IdFormat::DomainName, "x", "a..b"),
            (IdFormat::Arn, "arn:aws:s3:::bucket", "arn::s3:::bucket"),
            (IdFormat::Freeform, "x", ""),
        ] {
            assert!(format.accepts(good), "{format:?} {good}");
            assert!(!format.accepts(bad), "{format:?} {bad}");
            assert!(IdFormat::Unknown.accepts(bad));
        }
        assert!(!IdFormat::DomainName.accepts(&"a.".repeat(127).replace("a.", "ab.")));
        assert!(!IdFormat::Uuid.accepts("11111111-2222-3333-4444-5555aaaaBBB"));
    }
}
