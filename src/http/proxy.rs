//! Which proxy a request goes through: from the environment snapshot, never for loopback.

use std::net::IpAddr;

use reqwest::Url;

use crate::variables::Variables;

/// A proxy variable that cannot be used. Names the variable, never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the variable `{variable}` does not hold a proxy address such as `http://proxy.example:3128`"
)]
pub struct ProxyProblem {
    /// The variable.
    pub variable: &'static str,
}

#[derive(Clone)]
pub(super) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    /// Hosts that are asked directly.
    direct: Vec<Direct>,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Direct {
    /// `*`.
    Everything,
    /// A domain and all below it, lower case, no leading dot.
    Domain(String),
    /// An address, or a network as address and prefix length.
    Network(IpAddr, u8),
}

impl Proxies {
    pub(super) fn none() -> Self {
        Self {
            http: None,
            https: None,
            direct: Vec::new(),
        }
    }

    pub(super) fn from_variables(variables: &Variables) -> Result<Self, ProxyProblem> {
        let find = |names: &[&'static str]| -> Result<Option<Url>, ProxyProblem> {
            for &variable in names {
                if let Some(value) = variables.non_empty(variable) {
                    return address(value).map(Some).ok_or(ProxyProblem { variable });
                }
            }
            Ok(None)
        };
        Ok(Self {
            http: find(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])?,
            https: find(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?,
            direct: variables
                .non_empty("no_proxy")
                .or_else(|| variables.non_empty("NO_PROXY"))
                .map(direct)
                .unwrap_or_default(),
        })
    }

    /// True when a request to `url` goes through a proxy.
    pub(super) fn applies_to(&self, url: &Url) -> bool {
        self.choose(url).is_some()
    }

    /// Where the proxy of such a request is, without its credentials.
    pub(super) fn place_for(&self, url: &Url) -> Option<String> {
        let proxy = self.choose(url)?;
        let port = proxy
            .port_or_known_default()
            .map_or_else(String::new, |port| format!(":{port}"));
        Some(format!("{}{port}", proxy.host_str()?))
    }

    pub(super) fn install(&self, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        let builder = builder.no_proxy();
        if self.http.is_none() && self.https.is_none() {
            return builder;
        }
        let proxies = self.clone();
        builder.proxy(reqwest::Proxy::custom(move |url| {
            proxies.choose(url).cloned()
        }))
    }

    fn choose(&self, url: &Url) -> Option<&Url> {
        let host = url
            .host_str()?
            .trim_start_matches('[')
            .trim_end_matches(']');
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        if is_loopback(&host, address)
            || self.direct.iter().any(|entry| entry.covers(&host, address))
        {
            return None;
        }
        match url.scheme() {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        }
    }
}

impl Direct {
    fn covers(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::Everything => true,
            Self::Domain(domain) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            Self::Network(network, prefix) => {
                address.is_some_and(|address| same_network(address, *network, *prefix))
            }
        }
    }
}

fn is_loopback(host: &str, address: Option<IpAddr>) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || address.is_some_and(|address| address.to_canonical().is_loopback())
}

fn same_network(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - u32::from(prefix.min(32));
            (u64::from(a.to_bits()) >> shift) == (u64::from(b.to_bits()) >> shift)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128 - u32::from(prefix.min(128));
            shift == 128 || (a.to_bits() >> shift) == (b.to_bits() >> shift)
        }
        _ => false,
    }
}

fn direct(list: &str) -> Vec<Direct> {
    list.split([',', ' '])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            if entry == "*" {
                return Direct::Everything;
            }
            let (network, prefix) = match entry.split_once('/') {
                Some((network, prefix)) => (network, prefix.parse::<u8>().ok()),
                None => (entry, None),
            };
            match network.parse::<IpAddr>() {
                Ok(network) => Direct::Network(network, prefix.unwrap_or(u8::MAX)),
                Err(_) => Direct::Domain(
                    entry
                        .trim_start_matches('*')
                        .trim_matches('.')
                        .to_ascii_lowercase(),
                ),
            }
        })
        .collect()
}

fn address(text: &str) -> Option<Url> {
    let text = text.trim();
    let url = if text.contains("://") {
        Url::parse(text).ok()?
    } else {
        Url::parse(&format!("http://{text}")).ok()?
    };
    (matches!(url.scheme(), "http" | "https") && url.host_str().is_some()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(&variables(pairs)).unwrap()
    }

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[track_caller]
    fn check(pairs: &[(&str, &str)], url: &str, expected: Option<&str>) {
        let proxies = proxies(pairs);
        let chosen = proxies.choose(&Url::parse(url).unwrap()).map(Url::as_str);
        assert_eq!(chosen, expected, "{url}");
    }

    #[test]
    fn the_variable_for_the_scheme_decides() {
        let both = [("HTTP_PROXY", "http://p:1"), ("https_proxy", "q:2")];
        check(&both, "http://a.test", Some("http://p:1/"));
        check(&both, "https://a.test", Some("http://q:2/"));
        check(
            &[("ALL_PROXY", "http://r:3")],
            "https://a.test",
            Some("http://r:3/"),
        );
        check(&[("HTTP_PROXY", "")], "http://a.test", None);
        check(&[], "http://a.test", None);
    }

    #[test]
    fn loopback_is_always_asked_directly() {
        let all = [("ALL_PROXY", "http://p:1")];
        for url in [
            "http://localhost:8080/",
            "http://LOCALHOST/",
            "http://shop.localhost/",
            "http://localhost./",
            "http://127.0.0.1/",
            "http://127.9.9.9/",
            "https://[::1]:444/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            check(&all, url, None);
        }
        check(&all, "http://localhost.example.test/", Some("http://p:1/"));
    }

    #[test]
    fn no_proxy_names_domains_addresses_and_networks() {
        let set = [
            ("ALL_PROXY", "http://p:1"),
            (
                "NO_PROXY",
                "a.test, .b.test,10.0.0.0/8 192.0.2.7,2001:db8::/32,*.c.test",
            ),
        ];
        for url in [
            "http://a.test",
            "http://x.a.test",
            "http://b.test",
            "http://x.b.test",
            "http://10.1.2.3",
            "http://192.0.2.7",
            "http://[2001:db8::1]",
            "http://x.c.test",
        ] {
            check(&set, url, None);
        }
        for url in [
            "http://xa.test",
            "http://11.0.0.1",
            "http://192.0.2.8",
            "http://[2001:db9::1]",
        ] {
            check(&set, url, Some("http://p:1/"));
        }
        check(
            &[("ALL_PROXY", "p:1"), ("no_proxy", "*")],
            "http://a.test",
            None,
        );
    }

    #[test]
    fn a_proxy_variable_that_is_no_address_is_named_but_not_shown() {
        for value in [
            "socks5://p:1",
            "http://",
            "://",
            "http://user:hunter2@p:99999",
        ] {
            let problem = Proxies::from_variables(&variables(&[("HTTPS_PROXY", value)])).err();
            assert_eq!(
                problem,
                Some(ProxyProblem {
                    variable: "HTTPS_PROXY"
                }),
                "{value}"
            );
        }
    }
}
