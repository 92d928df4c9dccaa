//! Which addresses a webhook may call: public ones, unless configured otherwise.
//!
//! A name is resolved once, by our own resolver; what it refuses is never connected to, and what it
//! lets through is what is connected to. So a name that changes its mind in between gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Why an address is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefused {
    /// Not `https`; `http` only where private addresses are allowed.
    #[error("an https URL is needed")]
    Scheme,
    /// Nothing to connect to, or something that would be sent along.
    #[error("a URL with a host, without user, password and fragment is needed")]
    Shape,
    /// It leads into a network that is not public.
    #[error("private, local and reserved addresses are not called (--webhook-allow-private)")]
    Private,
}

/// What of IPv4 is not public (IANA's special-purpose registry): network and length of the prefix.
const V4_RESERVED: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10), // carriers' NAT, and a cloud's metadata
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16), // link-local, and most clouds' metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Of IPv6 only `2000::/3` is handed out; this within it is not public. 6to4 and Teredo lead to
/// IPv4 addresses of somebody else's choice.
const V6_RESERVED: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Whether an address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !V4_RESERVED
            .iter()
            .any(|(net, length)| (v4.to_bits() ^ net.to_bits()).leading_zeros() >= *length),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => is_public(IpAddr::V4(v4)),
            None => {
                v6.segments()[0] & 0xe000 == 0x2000
                    && !V6_RESERVED.iter().any(|(net, length)| {
                        (v6.to_bits() ^ net.to_bits()).leading_zeros() >= *length
                    })
            }
        },
    }
}

/// The IPv4 address that a mapped one (`::ffff:a.b.c.d`) or one of NAT64 (`64:ff9b::a.b.c.d`) is.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let nat64 = v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    if nat64 { Some(Ipv4Addr::from_bits(v6.to_bits() as u32)) } else { v6.to_ipv4_mapped() }
}

/// A URL that may be called, as far as it says so itself. What its name means is seen when it is
/// resolved.
pub fn check(url: &Url, allow_private: bool) -> Result<(), AddressRefused> {
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => return Err(AddressRefused::Scheme),
    }
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let host = url.host_str().filter(|host| bare && !host.is_empty());
    let host = host.ok_or(AddressRefused::Shape)?;
    // A literal is never resolved. However it was written, `Url` has made one form of it.
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match literal {
        Ok(address) if !allow_private && !is_public(address) => Err(AddressRefused::Private),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Resolves names by the machine's resolver, and refuses those of which any address is refused.
#[derive(Debug, Clone, Copy)]
pub struct GuardedResolver {
    /// Whether private addresses may be called.
    pub allow_private: bool,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            // Port 0: the client puts the URL's in its place.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            if !allow_private && found.iter().any(|address| !is_public(address.ip())) {
                return Err(AddressRefused::Private.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_called() {
        for public in [
            "93.184.215.14",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.170",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001:0:1::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn literals_are_seen_through_however_they_are_written() {
        let told = |url: &str| check(&url.parse().unwrap(), false);
        for url in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:7f00:1]/",
            "https://0251.0376.0251.0376/",
        ] {
            assert_eq!(told(url), Err(AddressRefused::Private), "{url}");
        }
        assert_eq!(told("http://example.com/"), Err(AddressRefused::Scheme));
        assert_eq!(told("ftp://example.com/"), Err(AddressRefused::Scheme));
        assert_eq!(told("https://a:b@example.com/"), Err(AddressRefused::Shape));
        assert_eq!(told("https://example.com/#x"), Err(AddressRefused::Shape));
        assert_eq!(told("https://example.com:8443/in?a=b"), Ok(()));
        assert_eq!(check(&"http://127.0.0.1:1/".parse().unwrap(), true), Ok(()));
    }

    #[tokio::test]
    async fn a_name_that_leads_home_is_refused() {
        let resolver = GuardedResolver { allow_private: false };
        let refused = resolver.resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert_eq!(refused.downcast_ref(), Some(&AddressRefused::Private));
        let resolver = GuardedResolver { allow_private: true };
        assert!(resolver.resolve("localhost".parse().unwrap()).await.is_ok());
    }
}
