//! What the server reaches at most, which loads are multiples of.
//!
//! The engine's times alone would not do: requests take time on the server's core, too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sdpoint::Instance;
use tokio::task::JoinSet;

use crate::client::{Client, Form, Requests};
use crate::server::{MODEL, Server, ServerArgs};
use crate::subject::Subject;

/// Requests in flight: several batches of the largest size.
const IN_FLIGHT: usize = 96;

/// Seconds of each measurement.
const SECONDS: f64 = 4.0;

/// Images per second, in a closed loop of requests of one image without a tight deadline.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub full: f64,
    pub cheapest: f64,
}

impl Rates {
    /// Measures them on a server of its own: what the controller learns from requests with so
    /// much time is of no use afterwards.
    pub async fn measure(server: &ServerArgs, subject: &Subject) -> anyhow::Result<Self> {
        let plain = Requests::new(MODEL, Form::Pixels, subject.size);
        let server = Server::start(server)?;
        let client = server.client(&plain).await?;
        let of = async |instance| {
            let requests = plain.clone().within(60.0).by(instance);
            throughput(&client, &requests, IN_FLIGHT, SECONDS).await
        };
        let rates = Self {
            full: of(Instance::Full).await?,
            cheapest: of(subject.cheapest()).await?,
        };
        server.stop()?;
        Ok(rates)
    }
}

/// Images per second with this many requests of one image in flight.
pub async fn throughput(
    client: &Client,
    requests: &Requests,
    in_flight: usize,
    seconds: f64,
) -> anyhow::Result<f64> {
    let requests = Arc::new(requests.clone());
    let mut running = JoinSet::new();
    let spawn = |running: &mut JoinSet<_>, number| {
        let (client, requests) = (client.clone(), requests.clone());
        running.spawn(async move { client.infer(requests.request(number)).await });
    };
    (0..in_flight).for_each(|number| spawn(&mut running, number));
    // Answers before the start belong to batches that filled up slowly.
    let warm = Instant::now() + Duration::from_secs_f64(0.2 * seconds);
    let mut start = None;
    let mut answers = 0;
    while let Some(answer) = running.join_next().await {
        answer??;
        let now = Instant::now();
        match start {
            None if now >= warm => start = Some(now),
            None => {}
            Some(start) => {
                answers += 1;
                let passed = now.duration_since(start).as_secs_f64();
                if passed >= seconds {
                    while running.join_next().await.is_some() {}
                    return Ok(f64::from(answers) / passed);
                }
            }
        }
        spawn(&mut running, answers as usize);
    }
    anyhow::bail!("the server stopped answering")
}
