//! Counts connections, in all and by address, and lets no more in than the limits say.
//!
//! An IPv6 peer counts by its /64: whoever has one address there has them all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The door of the server.
#[derive(Debug)]
pub struct Gate {
    all_max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why the gate stays shut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// There are as many connections as the server takes.
    All,
    /// There are as many from this address as the server takes.
    Address,
}

/// A connection that was let in; dropping it makes room.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    counts_in_all: bool,
    address: Option<IpAddr>,
}

impl Gate {
    /// A gate with these limits.
    pub fn new(all_max: usize, per_address_max: usize) -> Arc<Gate> {
        Arc::new(Gate { all_max, per_address_max, open: Mutex::default() })
    }

    /// Counts a connection; without an `address` in all only (a proxy's).
    ///
    /// # Errors
    /// [`Full`] where a limit is reached.
    pub fn admit(self: &Arc<Gate>, address: Option<IpAddr>) -> Result<Permit, Full> {
        self.count(true, address)
    }

    /// Counts what a proxy's connection carries for this address, by address only.
    ///
    /// # Errors
    /// [`Full::Address`].
    pub fn admit_forwarded(self: &Arc<Gate>, address: IpAddr) -> Result<Permit, Full> {
        self.count(false, Some(address))
    }

    fn count(self: &Arc<Gate>, in_all: bool, address: Option<IpAddr>) -> Result<Permit, Full> {
        let address = address.map(counted);
        let mut open = self.lock();
        if in_all && open.all >= self.all_max {
            return Err(Full::All);
        }
        if let Some(address) = address {
            let count = open.by_address.entry(address).or_default();
            if *count >= self.per_address_max {
                return Err(Full::Address);
            }
            *count += 1;
        }
        open.all += usize::from(in_all);
        Ok(Permit { gate: self.clone(), counts_in_all: in_all, address })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The address that the connection counts by, an IPv6 peer's /64; `None` for a proxy's own.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.gate.lock();
        open.all -= usize::from(self.counts_in_all);
        let Some(address) = self.address else { return };
        if let Some(count) = open.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_a_gone_connection_makes_room() {
        let gate = Gate::new(3, 2);
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|address| Some(address.parse().unwrap()));
        let first = gate.admit(a).unwrap();
        let _second = gate.admit(a).unwrap();
        assert_eq!(gate.admit(a).unwrap_err(), Full::Address);
        let _third = gate.admit(b).unwrap();
        assert_eq!(gate.admit(b).unwrap_err(), Full::All);
        drop(first);
        let _fourth = gate.admit(a).unwrap();
        assert_eq!(gate.admit(None).unwrap_err(), Full::All);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_a_mapped_address_as_itself() {
        let gate = Gate::new(9, 1);
        let _one = gate.admit(Some("2001:db8::1".parse().unwrap())).unwrap();
        assert_eq!(gate.admit(Some("2001:db8::ffff:2".parse().unwrap())).unwrap_err(), Full::Address);
        let _other = gate.admit(Some("2001:db8:0:1::1".parse().unwrap())).unwrap();
        let _mapped = gate.admit(Some("::ffff:10.0.0.1".parse().unwrap())).unwrap();
        let forwarded = gate.admit_forwarded("10.0.0.1".parse().unwrap());
        assert_eq!(forwarded.unwrap_err(), Full::Address);
    }
}
