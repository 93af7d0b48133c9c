//! How much each client uses: images in flight, or connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is in use by client address, or network of IPv6. Behind a proxy all clients have the same
/// address.
#[derive(Debug, Default)]
pub struct Clients(Mutex<HashMap<IpAddr, usize>>);

/// What a client uses until this is dropped.
#[derive(Debug)]
pub struct Share {
    clients: Arc<Clients>,
    client: IpAddr,
    amount: usize,
}

impl Clients {
    /// Adds `amount` to what a client uses.
    ///
    /// # Errors
    /// If the client would use more than `most`; the error is what it uses.
    pub fn take(
        self: &Arc<Self>,
        client: IpAddr,
        amount: usize,
        most: usize,
    ) -> Result<Share, usize> {
        let client = network(client);
        let mut clients = self.lock();
        let used = clients.get(&client).copied().unwrap_or(0);
        if used + amount > most {
            return Err(used);
        }
        clients.insert(client, used + amount);
        drop(clients);
        Ok(Share {
            clients: self.clone(),
            client,
            amount,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network that a client has to itself: with IPv6, usually one of 64 bits.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::from([a, b, c, d, 0, 0, 0, 0]).into()
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut clients = self.clients.lock();
        if let Some(used) = clients.get_mut(&self.client) {
            *used = used.saturating_sub(self.amount);
            if *used == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_a_share_of_its_own() {
        let clients = Arc::new(Clients::default());
        let [one, other] = ["10.0.0.1", "::1"].map(|ip| ip.parse().unwrap());
        let first = clients.take(one, 3, 4).unwrap();
        assert_eq!(clients.take(one, 2, 4).unwrap_err(), 3);
        let second = clients.take(one, 1, 4).unwrap();
        let others = clients.take(other, 4, 4).unwrap();
        drop(first);
        let third = clients.take(one, 3, 4).unwrap();
        drop((second, third, others));
        assert!(clients.lock().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let clients = Arc::new(Clients::default());
        let [one, same, other] =
            ["2001:db8::1", "2001:db8::ff:2", "2001:db8:0:1::1"].map(|ip| ip.parse().unwrap());
        let _taken = clients.take(one, 4, 4).unwrap();
        clients.take(same, 1, 4).unwrap_err();
        clients.take(other, 4, 4).unwrap();
    }
}
