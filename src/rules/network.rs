//! Hosts and address ranges, as far as rules need them.

use std::net::{IpAddr, Ipv4Addr};

/// The host of a URL-like text (`scheme://[user[:password]@]host[:port][/…]`), lower case.
pub(super) fn host(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    if scheme.is_empty()
        || !scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '+')
    {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = if host.starts_with('[') {
        host.split(']').next()?.trim_start_matches('[')
    } else {
        host.split(':').next()?
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

/// True when the text is a URL that holds a password.
pub(super) fn holds_password(text: &str) -> bool {
    text.split_once("://")
        .and_then(|(_, rest)| rest.split(['/', '?', '#']).next())
        .and_then(|authority| authority.rsplit_once('@'))
        .and_then(|(user, _)| user.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty())
}

/// An address range: the address and how many of its bits count. A plain address is a range of one.
pub(super) fn range(text: &str) -> Option<(IpAddr, u8)> {
    match text.split_once('/') {
        None => {
            let address: IpAddr = text.parse().ok()?;
            Some((address, if address.is_ipv4() { 32 } else { 128 }))
        }
        Some((address, bits)) => {
            let address: IpAddr = address.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
        }
    }
}

fn bits_of(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

/// True when `outer` holds every address of `inner`.
pub(super) fn holds(outer: (IpAddr, u8), inner: (IpAddr, u8)) -> bool {
    let ((a, width), (b, other)) = (bits_of(outer.0), bits_of(inner.0));
    if width != other || outer.1 > inner.1 {
        return false;
    }
    let shift = u32::from(width - outer.1);
    let cut = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
    cut(a) == cut(b)
}

/// Fewer bits than any single owner's range has: the largest that was ever given away is a /8, of IPv6 a
/// /16. So two halves of the internet are the internet, too.
const NOBODYS_OWN: (u8, u8) = (8, 16);

/// Words that clouds take for the whole internet.
const EVERYWHERE: [&str; 4] = ["*", "all", "any", "internet"];

/// True for a range, or a word, that stands for the whole internet or a part of it that nobody owns alone.
pub(super) fn is_everywhere(text: &str) -> bool {
    let text = text.trim();
    EVERYWHERE
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
        || range(text).is_some_and(|(address, bits)| {
            bits < if address.is_ipv4() {
                NOBODYS_OWN.0
            } else {
                NOBODYS_OWN.1
            }
        })
}

/// True for an address that only a private network can reach.
pub(super) fn is_private(text: &str) -> bool {
    match text.trim().parse() {
        Ok(IpAddr::V4(address)) => {
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address == Ipv4Addr::UNSPECIFIED
        }
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_urls() {
        for (text, expected) in [
            ("http://api:8080/x", Some("api")),
            ("postgres://u:p@DB/orders", Some("db")),
            ("http://[::1]:80/", Some("::1")),
            ("api:8080", None),
            ("http://", None),
        ] {
            assert_eq!(host(text).as_deref(), expected, "{text}");
        }
        assert!(holds_password("postgres://u:p@db/x"));
        assert!(!holds_password("postgres://u@db/x"));
    }

    #[test]
    fn ranges_hold_each_other() {
        let holds = |outer: &str, inner: &str| holds(range(outer).unwrap(), range(inner).unwrap());
        assert!(holds("0.0.0.0/0", "10.0.0.0/8"));
        assert!(holds("10.0.0.0/8", "10.1.2.3"));
        assert!(!holds("10.0.0.0/8", "11.0.0.0/8"));
        assert!(!holds("10.0.0.0/16", "10.0.0.0/8"));
        assert!(!holds("::/0", "10.0.0.0/8"));
        assert!(holds("::/0", "2001:db8::/32"));
        assert!(is_everywhere("::/0") && is_everywhere("0.0.0.0/0") && !is_everywhere("1.2.3.4"));
        assert!(
            is_everywhere("128.0.0.0/1") && is_everywhere("2000::/3") && is_everywhere(" Any ")
        );
        assert!(!is_everywhere("10.0.0.0/8") && !is_everywhere("2001::/16"));
        assert!(range("10.0.0.0/33").is_none());
        assert!(is_private("192.168.1.1") && !is_private("8.8.8.8"));
    }
}
