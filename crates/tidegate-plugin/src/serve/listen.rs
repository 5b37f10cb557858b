//! Where the host reaches us: a unix socket, or a loopback port where there are none.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

/// Where to listen.
#[derive(Debug)]
pub(crate) enum Place {
    /// A socket of a fresh name in a directory, open to a group if one is named.
    Socket {
        directory: PathBuf,
        group: Option<String>,
    },
    /// The first free port of a range on 127.0.0.1.
    Ports(RangeInclusive<u16>),
}

/// A bound listener. Dropping it removes its socket.
pub(crate) enum Listener {
    #[cfg(unix)]
    Socket {
        listener: UnixListener,
        path: PathBuf,
    },
    Port(TcpListener),
}

impl Listener {
    pub(crate) fn bind(place: &Place) -> Result<Self, String> {
        match place {
            #[cfg(unix)]
            Place::Socket { directory, group } => socket(directory, group.as_deref()),
            #[cfg(not(unix))]
            Place::Socket { .. } => Err("this system has no unix sockets".to_owned()),
            Place::Ports(ports) => port(ports),
        }
    }

    pub(crate) fn network(&self) -> &'static str {
        match self {
            #[cfg(unix)]
            Self::Socket { .. } => "unix",
            Self::Port(_) => "tcp",
        }
    }

    pub(crate) fn address(&self) -> String {
        match self {
            #[cfg(unix)]
            Self::Socket { path, .. } => path.display().to_string(),
            Self::Port(listener) => listener
                .local_addr()
                .map(|address| address.to_string())
                .unwrap_or_default(),
        }
    }
}

#[cfg(unix)]
impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Socket { path, .. } = self {
            // Gone already is as good.
            drop(std::fs::remove_file(path));
        }
    }
}

#[cfg(unix)]
fn socket(directory: &std::path::Path, group: Option<&str>) -> Result<Listener, String> {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = std::path::absolute(directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let group = group.map(group_id).transpose()?;
    loop {
        let path = directory.join(format!("plugin{}", random()));
        if path
            .to_str()
            .is_none_or(|text| text.contains(['|', '\n', '\r']))
        {
            return Err(format!(
                "the directory for sockets, {}, has a name that does not fit into a handshake line",
                directory.display()
            ));
        }
        let listener = match UnixListener::bind(&path) {
            Ok(listener) => listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => continue,
            Err(error) => {
                return Err(format!(
                    "cannot make a socket in {}: {error} (a shorter path in PLUGIN_UNIX_SOCKET_DIR or TMPDIR may help)",
                    directory.display()
                ));
            }
        };
        let bound = Listener::Socket {
            listener,
            path: path.clone(),
        };
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        if let Some(group) = group {
            std::os::unix::fs::chown(&path, None, Some(group))
                .map_err(|error| format!("cannot give the socket to group {group}: {error}"))?;
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
            .map_err(|error| format!("cannot close the socket to others: {error}"))?;
        return Ok(bound);
    }
}

/// A group by number, or by name.
#[cfg(unix)]
fn group_id(group: &str) -> Result<u32, String> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups =
        std::fs::read_to_string("/etc/group").map_err(|error| format!("/etc/group: {error}"))?;
    groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&group))
        .and_then(|fields| fields.get(2)?.parse().ok())
        .ok_or_else(|| {
            format!("PLUGIN_UNIX_SOCKET_GROUP names the group {group:?}, which does not exist")
        })
}

fn port(ports: &RangeInclusive<u16>) -> Result<Listener, String> {
    for port in ports.clone() {
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
            let ready = listener
                .set_nonblocking(true)
                .and_then(|()| TcpListener::from_std(listener));
            return ready
                .map(Listener::Port)
                .map_err(|error| format!("cannot listen on port {port}: {error}"));
        }
    }
    Err(format!(
        "no port from {} to {} is free on 127.0.0.1",
        ports.start(),
        ports.end()
    ))
}

/// Digits nobody else has: hash keys are random.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_passed_over_and_a_full_range_said() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = taken.local_addr().unwrap().port();
        let error = Listener::bind(&Place::Ports(number..=number))
            .err()
            .unwrap();
        assert!(error.contains(&number.to_string()), "{error}");
        let listener = Listener::bind(&Place::Ports(0..=0)).unwrap();
        assert_eq!(listener.network(), "tcp");
        assert!(
            listener.address().starts_with("127.0.0.1:"),
            "{}",
            listener.address()
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_socket_is_closed_to_others_and_goes_with_its_listener() {
        use std::os::unix::fs::PermissionsExt as _;
        let listener = Listener::bind(&Place::Socket {
            directory: std::env::temp_dir(),
            group: None,
        })
        .unwrap();
        let path = PathBuf::from(listener.address());
        assert!(
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .strip_prefix("plugin")
                .unwrap()
                .parse::<u64>()
                .is_ok()
        );
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop(listener);
        assert!(!path.exists());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_directory_that_cannot_hold_a_socket_is_an_error() {
        let nowhere = Place::Socket {
            directory: "/nowhere/at/all".into(),
            group: None,
        };
        assert!(Listener::bind(&nowhere).is_err());
        let group = Place::Socket {
            directory: std::env::temp_dir(),
            group: Some("no such group".to_owned()),
        };
        assert!(
            Listener::bind(&group)
                .err()
                .unwrap()
                .contains("no such group")
        );
    }
}
