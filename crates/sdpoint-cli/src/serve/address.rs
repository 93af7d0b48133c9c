//! The addresses that the server listens on.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::failure::{Class, Failure};

/// Options for the address of each protocol.
#[derive(clap::Args)]
pub struct Listen {
    /// Address of REST: HOST:PORT
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = parse)]
    listen: SocketAddr,
    /// Address of gRPC, or off [default: the next port]
    #[arg(long, value_name = "ADDRESS|off", value_parser = parse_or_off)]
    grpc: Option<Where>,
    /// Address of metrics, or off [default: the port after that]
    #[arg(long, value_name = "ADDRESS|off", value_parser = parse_or_off)]
    metrics: Option<Where>,
}

#[derive(Clone, Copy, Debug)]
enum Where {
    Off,
    At(SocketAddr),
}

/// The addresses of all protocols.
pub struct Listening {
    pub rest: SocketAddr,
    pub grpc: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
}

impl Listen {
    /// The addresses; by default, on the ports after that of REST.
    pub fn addresses(&self) -> Result<Listening, Failure> {
        Ok(Listening {
            rest: self.listen,
            grpc: self.beside(self.grpc, 1, "--grpc")?,
            metrics: self.beside(self.metrics, 2, "--metrics")?,
        })
    }

    fn beside(
        &self,
        given: Option<Where>,
        offset: u16,
        option: &str,
    ) -> Result<Option<SocketAddr>, Failure> {
        let port = match given {
            Some(Where::Off) => return Ok(None),
            Some(Where::At(address)) => return Ok(Some(address)),
            // Zero stands for any free port.
            None if self.listen.port() == 0 => Some(0),
            None => self.listen.port().checked_add(offset),
        };
        let port = port.ok_or_else(|| {
            let message = format!("there is no port {offset} above that of --listen");
            Failure::new(Class::Usage, message).hint(format!("choose one with {option}, or off"))
        })?;
        Ok(Some(SocketAddr::new(self.listen.ip(), port)))
    }

    /// Refuses addresses that other machines can reach.
    pub fn check_local(&self, listening: &Listening) -> Result<(), Failure> {
        let all = [Some(listening.rest), listening.grpc, listening.metrics];
        let reachable = all
            .into_iter()
            .flatten()
            .find(|address| !address.ip().is_loopback());
        let Some(address) = reachable else {
            return Ok(());
        };
        let message = format!("other machines could use the server on {address} without a token");
        Err(Failure::new(Class::Usage, message).hint(
            "require tokens with --token-file FILE (`openssl rand -hex 32 > FILE` creates one), or \
             allow everyone with --insecure",
        ))
    }
}

fn parse(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().ok().into_iter().flatten();
    found
        .next()
        .ok_or_else(|| "expected an address and a port, such as 0.0.0.0:8080".to_owned())
}

fn parse_or_off(text: &str) -> Result<Where, String> {
    match text {
        "off" => Ok(Where::Off),
        text => parse(text).map(Where::At),
    }
}
